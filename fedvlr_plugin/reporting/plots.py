"""Pictures from stored results, as PNG, SVG, or SVG to put into a page. Needs the extra [report] (matplotlib)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import missing_extra
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.files import write_atomic

STYLES = {"": "-", "MLP": "--", "VBPR": "-.", "ours": ":"}
Bar = tuple[float, float, float]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture


def empty_picture(width: float, height: float) -> Picture:
    """A picture (inches) without axes that belongs to no global state; raises `MissingExtraError` without matplotlib."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Picture
    except ImportError:
        raise missing_extra("matplotlib", "report", "drawing a figure") from None
    picture = Picture(figsize=(width, height))
    FigureCanvasSVG(picture)
    return picture


def new_picture(width: float, height: float) -> tuple[Picture, Axes]:
    """A picture with one axes that fills it; otherwise as `empty_picture`."""
    picture = empty_picture(width, height)
    picture.set_layout_engine("constrained")
    return picture, picture.add_subplot()


def save_picture(picture: Picture, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.svg`; return the paths."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    for path in paths:
        buffer = io.BytesIO()
        _save(picture, buffer, path.suffix)
        write_atomic(path, buffer.getvalue())
    return paths


def inline_svg(picture: Picture, prefix: str) -> str:
    """The picture as an `<svg>` element; `prefix` keeps its ids apart from those of others on the page."""
    buffer = io.BytesIO()
    _save(picture, buffer, ".svg")
    text = buffer.getvalue().decode()
    element = text[text.index("<svg") :]
    return re.sub(r'((?:id="|xlink:href="#|url\(#))', rf"\g<1>{prefix}-", element)


def _save(picture: Picture, buffer: io.BytesIO, suffix: str) -> None:
    """Without date and random ids, so that the same picture is the same bytes."""
    from matplotlib import rc_context

    metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "fedvlr"}):
        picture.savefig(buffer, format=suffix[1:], dpi=160, metadata=metadata)


def learning_curves(curves: Mapping[str, RunRecord], title: str) -> Picture:
    """Validation NDCG@50 by round, one line per row (its run with the first seed), the selected round marked.

    Colour is the backbone (or the centralized row), the kind of line is the fusion.
    """
    picture, axes = new_picture(8.0, 4.5)
    bases = list(dict.fromkeys(row.partition("+")[0] for row in curves))
    for row, record in curves.items():
        points = [(part.round, part.valid["ndcg@50"]) for part in record.curve if part.valid is not None]
        if points:
            base, _, variant = row.partition("+")
            colour, style = f"C{bases.index(base)}", STYLES.get(variant, "-")
            (line,) = axes.plot(*zip(*points, strict=True), style, color=colour, label=row, linewidth=1.2)
            best = [value for number, value in points if number == record.best_round]
            axes.plot([record.best_round] * len(best), best, "o", markersize=4, color=line.get_color())
    axes.set_title(title)
    axes.set_xlabel("round (epoch of a centralized row)")
    axes.set_ylabel("validation NDCG@50, %")
    axes.locator_params(axis="x", integer=True)
    picture.legend(loc="outside right upper", fontsize=7)
    return picture


def bars(groups: Sequence[str], series: Mapping[str, Sequence[Bar]], label: str) -> Picture:
    """Grouped bars: one group per name, one bar per series; each bar is (height, lower end, upper end)."""
    picture, axes = new_picture(max(5.0, 0.4 * len(groups) * len(series) + 3), 3.6)
    width = 0.8 / max(1, len(series))
    for i, (name, values) in enumerate(series.items()):
        places = [group + (i - (len(series) - 1) / 2) * width for group in range(len(groups))]
        heights = [height for height, _, _ in values]
        whiskers = [[h - low for h, low, _ in values], [high - h for h, _, high in values]]
        axes.bar(places, heights, width, yerr=whiskers, label=name, capsize=2, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(groups)), list(groups), fontsize=8)
    axes.set_ylabel(label)
    picture.legend(loc="outside right upper", fontsize=7)
    return picture


def name_levels(axes: Axes, levels: Sequence[tuple[float, str]], line_height: float, size: float = 6.5) -> None:
    """Write the names of horizontal lines at the left end, above each if there is room; lines of one height share a name."""
    low, high = axes.get_ylim()
    named: dict[float, list[str]] = {}
    for height, name in levels:
        named.setdefault(round(height, 2), []).append(name)
    heights = sorted(named)
    places = spread_out([height + 0.6 * line_height for height in heights], line_height, low, high)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.3}
    for height, place in zip(heights, places, strict=True):
        text = ", ".join(named[height])
        across = axes.get_yaxis_transform()
        axes.annotate(text, (0.01, place), xycoords=across, fontsize=size, color="0.3", va="center", bbox=paper)


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places next to the `wanted` ones that are at least `gap` apart.

    Neighbours that would touch form a group around the mean of what they want (pool adjacent violators).

    Args:
        wanted: the best places, rising.
        gap: least distance between neighbours.
        low: lower end of the room; kept to if the places fit.
        high: upper end of it.
    """
    groups: list[tuple[float, int]] = []  # mean of wanted - index * gap, members
    for number, value in enumerate(wanted):
        mean, size = value - number * gap, 1
        while groups and groups[-1][0] >= mean:
            before, members = groups.pop()
            mean, size = (before * members + mean * size) / (members + size), members + size
        groups.append((mean, size))
    bases = [mean for mean, size in groups for _ in range(size)]
    room = high - low - (len(wanted) - 1) * gap
    return [min(max(base, low), low + max(room, 0.0)) + number * gap for number, base in enumerate(bases)]
