"""Show a data set: an HTML page with the histories of some users, and a PNG with its distributions.

Images are made smaller and embedded in the page; all text from the data is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.statistics import activity_of, share, statistics
from fedvlr_plugin.errors import ConfigError, missing_extra
from fedvlr_plugin.files import write_data_file

STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
section{border-top:1px solid #ccc;margin-top:1.5rem} ul{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;list-style:none}
li{width:7.5rem;font-size:.8rem;overflow-wrap:anywhere} img,.none{width:7.5rem;height:10rem;object-fit:cover;background:#eee;
display:flex;align-items:center;justify-content:center;color:#888} .test{outline:3px solid #b5543c} .valid{outline:3px solid #d9a441}
.cold::after{content:" cold";color:#b5543c;font-weight:bold}
"""


def write_page(
    data: PreparedData,
    titles: Mapping[str, str],
    path: Path,
    *,
    images: Mapping[str, Path] | None = None,
    users: int = 5,
    items: int = 24,
    seed: int = 0,
) -> int:
    """Write the HTML page.

    Args:
        data: the data set.
        titles: by raw item token.
        path: of the page.
        images: by raw item token.
        users: how many users are drawn, at least 1.
        items: training items shown for each user at most, at least 1.
        seed: of the draw.

    Returns:
        The number of images shown.

    Raises:
        ConfigError: `users` or `items` is below 1.
        DataError: the page cannot be written.
    """
    if users < 1 or items < 1:
        raise ConfigError(f"users and items must be 1 or more, got {users} and {items}")
    found, inter = statistics(data), data.interactions
    chosen = np.sort(np.random.default_rng(seed).choice(inter.n_users, min(users, inter.n_users), replace=False))
    shown, cache = 0, {}
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(data.name)}</title><style>{STYLE}</style>",
        f"<h1>{escape(data.name)}</h1><p>{found.users:,} users, {found.items:,} items, {found.interactions:,} interactions; ",
        f"cold test positives: {share(found.cold_test, found.test_positives)}. Outlined: <span class=valid>validation</span>, ",
        "<span class=test>test</span>; cold: never seen in training.</p>",
    ]
    for user in chosen.tolist():
        history = inter.history(user).tolist()
        held = [(int(inter.valid[user]), "valid"), (int(inter.test[user]), "test")]
        entries = [(item, kind) for item, kind in held if item >= 0] + [(item, "") for item in history[:items]]
        parts.append(
            f"<section><h2>user {escape(inter.user_tokens[user])}</h2><p>{len(history):,} training items"
            f"{f', {items} shown' if len(history) > items else ''}</p><ul>"
        )
        for item, kind in entries:
            token = inter.item_tokens[item]
            if token not in cache:
                cache[token] = _poster((images or {}).get(token))
            shown += cache[token] is not None
            picture = f'<img alt="" src="{cache[token]}">' if cache[token] else "<div class=none>no image</div>"
            mark = " ".join(filter(None, (kind, "cold" if inter.cold_items[item] else "")))
            parts.append(
                f'<li><div class="{mark}">{picture}</div>{escape(titles.get(token, "(no title)"))} [{escape(token)}]</li>'
            )
        parts.append("</ul></section>")
    write_data_file(path, "\n".join([*parts, "</html>"]).encode())
    return shown


def _poster(path: Path | None) -> str | None:
    """Return an image as a data URL of a small JPEG; None if it cannot be read."""
    if path is None:
        return None
    from fedvlr_plugin.data.images import decode

    image = decode(path).image
    if image is None:
        return None
    image.thumbnail((240, 320))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def save_overview(data: PreparedData, path: Path) -> None:
    """Write the PNG with the distributions of a data set.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report", "The picture of a data set") from None
    found = statistics(data)
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (activity, popularity), (cold, coverage) = figure.subplots(2, 2)
    sizes = activity_of(data)
    bins = np.unique(np.geomspace(max(1, sizes.min()), sizes.max() + 1, 30).astype(int))
    activity.hist(sizes, bins=bins.tolist() if len(bins) > 1 else 10, color="#4472a8")
    activity.set(xscale="log", xlabel="interactions", ylabel="users", title="Activity of users")
    counts = np.sort(data.interactions.train_counts)[::-1]
    popularity.plot(np.arange(1, len(counts) + 1), counts, color="#4472a8")
    popularity.set(
        xscale="log", yscale="symlog", xlabel="rank of the item", ylabel="training users", title="Popularity of items"
    )
    popularity.set_ylim(bottom=0)
    parts = (
        ("items", found.cold_items, found.items),
        ("validation\npositives", found.cold_valid, found.valid_positives),
        ("test\npositives", found.cold_test, found.test_positives),
    )
    bars = cold.bar([p[0] for p in parts], [100 * p[1] / max(1, p[2]) for p in parts], color="#b5543c")
    cold.bar_label(bars, labels=[f"{p[1]:,} of {p[2]:,}" for p in parts])
    cold.set(ylabel="percent", title="Cold: never seen in training", ylim=(0, 110))
    names = list(found.coverage)
    bars = coverage.bar(names or ["none"], [100 * found.coverage[n] for n in names] or [0], color="#5a8f4e")
    coverage.bar_label(bars, labels=[f"{found.widths[n]} columns" for n in names] or [""])
    coverage.set(ylabel="percent of the items", title="Modalities: rows of their own", ylim=(0, 110))
    figure.suptitle(
        f"{found.name}: {found.users:,} users, {found.items:,} items, {found.interactions:,} interactions, "
        f"{found.sparsity:.2f} % sparse"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_data_file(path, buffer.getvalue())
