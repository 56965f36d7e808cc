"""A few users' histories with titles and posters as one HTML page that needs nothing else.

Posters are shrunk and put into the page itself; everything that comes from data is escaped. Imports the data room,
`images` (Pillow only where posters are asked for).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.statistics import share, statistics
from fedvlr_plugin.errors import ConfigError
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
    """Writes the page; returns the number of posters in it. `users` are drawn by `seed`; at most `items` each."""
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
    """A small JPEG as a data address; None for what cannot be read."""
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
