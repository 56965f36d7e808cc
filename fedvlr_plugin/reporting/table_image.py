"""A table as a picture, for places that take no LaTeX: rules as booktabs has them, best numbers in bold, notes below.

Columns are as wide as their widest text, so nothing is cut or overlaps; Table 2 puts two data sets side by side and the
next two below.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.grid import Grid, format_value, is_number
from fedvlr_plugin.reporting.plots import empty_picture
from fedvlr_plugin.reporting.results_table import Table
from fedvlr_plugin.reporting.table2.formats import Text, blocks, group_ends, warm_and_cold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

DATASETS_BESIDE = 2
FONT, NOTE_FONT, LINE, GAP, BLOCK_GAP, MARGIN = 8.0, 6.5, 13.0, 10.0, 20.0, 12.0  # points
MIDDLE = 0.46 * LINE  # of a line's text, so that rules stand clear below it
Width = Callable[[str, float, bool], float]


@dataclass(frozen=True)
class Column:
    """A column: `group` stands above neighbours that share it, `left` aligns, `first` begins a block of columns."""

    group: str
    heading: str
    texts: tuple[Text, ...]
    left: bool = False
    first: bool = False


@dataclass(frozen=True)
class Band:
    """Columns side by side, with a thin rule after the lines in `ends`; bands stand below each other."""

    columns: tuple[Column, ...]
    ends: frozenset[int]


def table_picture(table: Table) -> Picture:
    """Table 2, then HR@50 on warm and cold positives where a data set has cold ones, and the caption."""
    ends = frozenset(group_ends(table.rows))
    names = Column("", "row", tuple(Text(row) for row in table.rows), left=True)
    bands = []
    for kind, beside in ((blocks(table), DATASETS_BESIDE * len(METRICS)), (warm_and_cold(table), 2 * DATASETS_BESIDE)):
        for start in range(0, len(kind), beside):
            columns = [names]
            for block in kind[start : start + beside]:
                texts = list(zip(*block.lines, strict=True))
                columns += [Column(block.title, h, texts[i], first=i == 0) for i, h in enumerate(block.headings)]
            bands.append(Band(tuple(columns), ends))
    return draw_bands(bands, caption(table))


def grid_picture(grid: Grid) -> Picture:
    """A plain table, with a rule wherever the column called `row` changes."""
    columns = []
    for number, heading in enumerate(grid.headings):
        texts = tuple(Text(format_value(line[number])) for line in grid.lines)
        columns.append(Column("", heading.strip(), texts, left=not all(is_number(text.text) for text in texts)))
    rows = [line[grid.headings.index("row")] for line in grid.lines] if "row" in grid.headings else []
    ends = frozenset(i for i, (one, two) in enumerate(itertools.pairwise(rows)) if one != two)
    return draw_bands([Band(tuple(columns), ends)], grid.notes)


def draw_bands(bands: Sequence[Band], notes: Sequence[str]) -> Picture:
    """The picture. Raises `MissingExtraError` without matplotlib."""
    empty_picture(1, 1)  # tells what is missing before anything is measured
    width = _measure()
    inner = max(_places(band, width)[-1][1] for band in bands)
    lines = [part for note in notes for part in wrap(note, 0.95 * inner, lambda text: width(text, NOTE_FONT, False))]
    heights = [LINE * (len(band.columns[0].texts) + (3 if _grouped(band) else 2) + 0.6) for band in bands]
    note_line = 1.35 * NOTE_FONT
    total = sum(heights) + note_line * len(lines) + 2 * MARGIN
    picture = empty_picture((inner + 2 * MARGIN) / 72, total / 72)
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-MARGIN, inner + MARGIN)
    axes.set_ylim(total - MARGIN, -MARGIN)  # points from the top
    top = 0.0
    for band, height in zip(bands, heights, strict=True):
        _draw(axes, band, _places(band, width), top)
        top += height
    for number, line in enumerate(lines):
        _text(axes, 0.0, top + note_line * (number + 0.5), line, NOTE_FONT)
    return picture


def _grouped(band: Band) -> bool:
    return any(column.group for column in band.columns)


def _places(band: Band, width: Width) -> list[tuple[float, float]]:
    """Left and right end of every column, in points."""
    places: list[tuple[float, float]] = []
    for column in band.columns:
        left = places[-1][1] + (BLOCK_GAP if column.first else GAP) if places else 0.0
        cells = [width(text.text, FONT, text.best) for text in column.texts]
        places.append((left, left + max([width(column.heading, FONT, False), *cells])))
    return places


def _draw(axes: Axes, band: Band, places: Sequence[tuple[float, float]], top: float) -> None:
    right = places[-1][1]
    _rule(axes, 0.0, right, top, 1.2)
    y = top
    if _grouped(band):
        for group, members in itertools.groupby(range(len(band.columns)), key=lambda i: band.columns[i].group):
            mine = list(members)
            first, last = places[mine[0]][0], places[mine[-1]][1]
            if group:
                _text(axes, (first + last) / 2, y + MIDDLE, group, FONT, "center")
                _rule(axes, first, last, y + LINE, 0.5)
        y += LINE
    for column, place in zip(band.columns, places, strict=True):
        _cell(axes, column, place, y + MIDDLE, Text(column.heading))
    y += LINE
    _rule(axes, 0.0, right, y, 0.8)
    for number in range(len(band.columns[0].texts)):
        for column, place in zip(band.columns, places, strict=True):
            _cell(axes, column, place, y + MIDDLE, column.texts[number])
        y += LINE
        if number in band.ends:
            _rule(axes, 0.0, right, y, 0.4)
    _rule(axes, 0.0, right, y, 1.2)


def _cell(axes: Axes, column: Column, place: tuple[float, float], y: float, text: Text) -> None:
    x, align = (place[0], "left") if column.left else (place[1], "right")
    _text(axes, x, y, text.text, FONT, align, text.best)


def _text(axes: Axes, x: float, y: float, text: str, size: float, align: str = "left", bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(
        x, y, text, fontsize=size, ha=align, va="center_baseline", fontweight=weight, parse_math=False,
        family="DejaVu Sans",
    )  # fmt: skip


def _rule(axes: Axes, left: float, right: float, y: float, thickness: float) -> None:
    axes.plot([left, right], [y, y], color="black", linewidth=thickness, solid_capstyle="butt", clip_on=False)


def _measure() -> Width:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    measure = TextToPath()

    @functools.cache
    def width(text: str, size: float, bold: bool) -> float:
        font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
        return float(measure.get_text_width_height_descent(text, font, ismath=False)[0]) if text else 0.0

    return width


def wrap(text: str, limit: float, width: Callable[[str], float]) -> list[str]:
    """The text in lines that are at most `limit` wide; a longer word stands alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}") <= limit:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
