"""What a row costs its clients beside what it reaches: bytes sent against test NDCG@50.

    bytes sent per client = bytes of one upload * client updates of the run / users * selected round / rounds run

The bytes of one upload are counted from the tensors of a live client (`table3.held_by`), the updates were counted
while the run was made, and rounds after the selected one do not count. Centralized rows and floors send no model:
they are levels to compare with. Imports `table3`, `table`, `grids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.table import Cell, Figure, Table, kind_of
from fedvlr_plugin.benchmark.table3 import held_by
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.paper.tables import Metric

METRIC: Metric = "ndcg@50"


@dataclass(frozen=True)
class Point:
    """A federated row on a data set. Bytes are float32 tensors without framing; `sent` is a mean over seeds.

    Attributes:
        upload: bytes of one upload. uploads: of an average client until the selected round. sent: bytes until then.
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
            uploads = [upload_bytes(record, counted) for record in cell.records]
            times = [uploads_until_selected(record) for record in cell.records]
            sent = sum(size * often for size, often in zip(uploads, times, strict=True)) / len(times)
            points.append(Point(dataset, row, max(uploads), sum(times) / len(times), sent, cell.figures[METRIC]))
    return points


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
            f"{p.figure.interval.low:.2f}..{p.figure.interval.high:.2f}",
        )
        for p in points
    )
    note = (
        "Bytes that an average client sends until the selected round, mean over seeds: float32 tensors of one upload, "
        "counted from a live client, times its uploads. No framing, compression or masks. NDCG@50 on test, percent."
    )
    headings = ("data set", "row", "bytes per upload", "uploads", "MB sent", "NDCG@50", "95 %")
    return Grid(headings, lines, (note,))
