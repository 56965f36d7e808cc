"""Pictures from stored results, as PNG, SVG, or SVG to put into a page. Needs the extra [report] (matplotlib).

Imports `table`, `files`; matplotlib when a picture is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.record import RunRecord
from fedvlr_plugin.errors import missing_extra
from fedvlr_plugin.files import write_atomic

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
    """Writes `<stem>.png` and `<stem>.svg`; returns the paths."""
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
    """Validation NDCG@50 by round, one line per row (its run with the first seed), the selected round marked."""
    picture, axes = new_picture(7.0, 4.0)
    for row, record in curves.items():
        points = [(part.round, part.valid["ndcg@50"]) for part in record.curve if part.valid is not None]
        if points:
            (line,) = axes.plot(*zip(*points, strict=True), label=row, linewidth=1.2)
            best = [value for number, value in points if number == record.best_round]
            axes.plot([record.best_round] * len(best), best, "o", markersize=4, color=line.get_color())
    axes.set_title(title)
    axes.set_xlabel("round (epoch of a centralized row)")
    axes.set_ylabel("validation NDCG@50, %")
    axes.locator_params(axis="x", integer=True)
    picture.legend(loc="outside right upper", fontsize=6)
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
