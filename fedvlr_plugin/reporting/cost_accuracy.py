"""What a row costs its clients beside what it reaches: bytes sent against test NDCG@50.

    bytes sent per client = bytes of one upload * client updates of the run / users * selected round / rounds run

The bytes of one upload are counted from the tensors of a live client (`table3.held_by`), the updates were counted while the
run was made, and rounds after the selected one do not count. Centralized rows and floors send no model: they are levels to
compare with.

The picture has a panel per data set: megabytes sent per client (log scale) against NDCG@50. Colour is the backbone, shape the
fusion. Names stand in a column beside each panel, spread out until none touches another, with a line to their point; floors
and the best centralized row are levels, named on the left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import ONE_SHOT
from fedvlr_plugin.paper.tables import Metric, display_name
from fedvlr_plugin.reporting.grid import Grid, format_interval
from fedvlr_plugin.reporting.plots import empty_picture, name_levels, spread_out
from fedvlr_plugin.reporting.results_table import Cell, Figure, Table, kind_of
from fedvlr_plugin.reporting.table3 import held_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

METRIC: Metric = "ndcg@50"


@dataclass(frozen=True)
class Point:
    """A federated row on a data set. Bytes are float32 tensors without framing; `sent` is a mean over seeds.

    Attributes:
        upload: bytes of one upload.
        uploads: of an average client until the selected round.
        sent: bytes until then.
    """

    dataset: str
    row: str
    upload: int
    uploads: float
    sent: float
    figure: Figure


@dataclass(frozen=True)
class Level:
    """A row that sends no model: a floor, or the best centralized row."""

    dataset: str
    row: str
    kind: str
    figure: Figure


def cost_points(table: Table) -> list[Point]:
    """Every federated cell of the table, by data set and row."""
    counted: dict[tuple[object, ...], int] = {}
    points = []
    for dataset in table.datasets:
        for row in table.rows:
            cell = table.cells.get((row, dataset))
            if cell is None or kind_of(row) != "federated":
                continue
            uploads = [sent_in_one_upload(record, counted) for record in cell.records]
            times = [uploads_until_selected(record) for record in cell.records]
            sent = sum(size * often for size, often in zip(uploads, times, strict=True)) / len(times)
            points.append(Point(dataset, row, max(uploads), sum(times) / len(times), sent, cell.figures[METRIC]))
    return points


def sent_in_one_upload(record: RunRecord, counted: dict[tuple[object, ...], int]) -> int:
    """Bytes of one upload: what a one-shot run counted for its mean client, else the tensors of a live one."""
    if record.row in ONE_SHOT:
        return round(record.curve[0].accounts["bytes_up"])
    return upload_bytes(record, counted)


def upload_bytes(record: RunRecord, counted: dict[tuple[object, ...], int]) -> int:
    """Bytes of one upload of the run; `counted` holds what was counted before."""
    spec, data = record.spec, record.data
    key = (spec.row, spec.model.model_dump_json(), spec.dtype, data.items, *sorted(data.modalities.items()))
    if key not in counted:
        counted[key] = held_by(spec, data.items, data.modalities).sent_bytes
    return counted[key]


def uploads_until_selected(record: RunRecord) -> float:
    """How often the average client sent something until the selected round."""
    if record.rounds == 0:
        return 0.0
    return record.cost.client_updates / record.data.users * record.best_round / record.rounds


def levels(table: Table) -> list[Level]:
    """The floors of each data set, and its centralized row with the highest mean."""
    found = []
    for dataset in table.datasets:
        cells = [cell for row in table.rows if (cell := table.cells.get((row, dataset))) is not None]
        found += [_level(cell) for cell in cells if kind_of(cell.row) == "floor"]
        others = [cell for cell in cells if kind_of(cell.row) == "recbole"]
        if others:
            found.append(_level(max(others, key=lambda cell: cell.figures[METRIC].mean)))
    return found


def _level(cell: Cell) -> Level:
    return Level(cell.dataset, cell.row, kind_of(cell.row), cell.figures[METRIC])


def cost_accuracy_grid(points: Sequence[Point]) -> Grid:
    """One line per point: bytes of an upload, uploads, bytes in all, and NDCG@50."""
    lines = tuple(
        (
            p.dataset,
            p.row,
            p.upload,
            round(p.uploads, 2),
            round(p.sent / 1e6, 3),
            p.figure.mean,
            format_interval(p.figure.interval.low, p.figure.interval.high),
        )
        for p in points
    )
    note = (
        "Bytes that an average client sends until the selected round, mean over seeds: float32 tensors of one upload, "
        "counted from a live client, times its uploads. No framing, compression or masks. NDCG@50 on test, percent."
    )
    headings = ("data set", "row", "bytes per upload", "uploads", "MB sent", "NDCG@50", "95 %")
    return Grid(headings, lines, (note,))


PANELS_BESIDE = 2
PANEL, LABELS, LEFT, BELOW, ABOVE = 5.0, 1.15, 0.65, 0.6, 0.4  # inches
FONT = 7.5
LINE = FONT * 1.3 / 72  # inches that a name takes
STRIP = 0.45  # of the range of the points, left free for the names of the levels
SHAPES = {"": "o", "MLP": "s", "VBPR": "D", "ours": "^"}


def cost_accuracy_picture(points: Sequence[Point], levels: Sequence[Level]) -> Picture:
    """The picture of at least one point. Raises `MissingExtraError` without matplotlib."""
    datasets = list(dict.fromkeys(point.dataset for point in points))
    most = max(sum(point.dataset == dataset for point in points) for dataset in datasets)
    tall = max(3.2, 1.6 * LINE * most)
    beside = min(PANELS_BESIDE, len(datasets))
    below = math.ceil(len(datasets) / beside)
    wide, high = LEFT + PANEL + LABELS, BELOW + tall + ABOVE
    picture = empty_picture(beside * wide, below * high)
    backbones = list(dict.fromkeys(point.row.partition("+")[0] for point in points))
    for number, dataset in enumerate(datasets):
        across, down = number % beside, number // beside
        corner = (across * wide + LEFT) / (beside * wide), ((below - 1 - down) * high + BELOW) / (below * high)
        axes = picture.add_axes((*corner, PANEL / (beside * wide), tall / (below * high)))
        mine = [point for point in points if point.dataset == dataset]
        _panel(axes, mine, [level for level in levels if level.dataset == dataset], backbones, tall)
        axes.set_title(display_name(dataset), fontsize=10)
    return picture


def _panel(axes: Axes, points: Sequence[Point], levels: Sequence[Level], backbones: Sequence[str], tall: float) -> None:
    heights = [figure.mean for figure in (*(p.figure for p in points), *(level.figure for level in levels))]
    margin = 0.05 * (max(heights) - min(heights)) or 1.0
    low, high = min(heights) - margin, max(heights) + margin
    sizes = [point.sent / 1e6 for point in points if point.sent > 0] or [1.0]
    span = max(max(sizes) / min(sizes), 4.0)
    least, largest = min(sizes) / span**STRIP, max(sizes) * span**0.05
    axes.set_xscale("log")
    axes.set_xlim(least, largest)
    axes.set_ylim(low, high)
    line_height = LINE / tall * (high - low)
    _levels(axes, levels, line_height)
    names: list[tuple[float, float, str, str]] = []
    for point in points:
        backbone, _, variant = point.row.partition("+")
        colour = f"C{backbones.index(backbone)}"
        x = max(point.sent / 1e6, least)
        axes.plot([x], [point.figure.mean], SHAPES.get(variant, "o"), color=colour, markersize=5.5, zorder=3)
        names.append((x, point.figure.mean, point.row, colour))
    names.sort(key=lambda name: name[1])
    places = spread_out([y for _, y, _, _ in names], line_height, low, high)
    for (x, y, text, colour), place in zip(names, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate(
            text, (x, y), (1.04, place), textcoords=axes.get_yaxis_transform(), fontsize=FONT, color=colour,
            va="center", ha="left", arrowprops=line | {"relpos": (0.0, 0.5)}, annotation_clip=False,
        )  # fmt: skip
    _ticks(axes)


def _levels(axes: Axes, levels: Sequence[Level], line_height: float) -> None:
    """Dashed lines, named in the strip on the left where no point is."""
    for level in levels:
        dashes = "--" if level.kind == "floor" else ":"
        axes.axhline(level.figure.mean, linestyle=dashes, linewidth=0.9, color="0.5")
    names = [
        (level.figure.mean, level.row if level.kind == "floor" else f"{level.row} (centralized)") for level in levels
    ]
    name_levels(axes, names, line_height)


def _ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=FONT)
    axes.set_xlabel("MB sent per client until the selected round", fontsize=8)
    axes.set_ylabel("NDCG@50, %", fontsize=8)
