"""Table 3, client parameters: the paper's figure, the closed form behind it, and what a client here really holds.

The closed forms are those of algorithm.md section 9, written in the width w (64 in the paper); each backbone has its own
(`Backbone.paper_parameters`).

Thousands are cut, not rounded. A cell that does not follow its form at w = 64 is looked up at other widths, cut or
rounded, and named. The last columns come from live tensors of this implementation, no formula: a client's private
parameters, and the numbers and bytes of one broadcast and one upload. Nothing is trained.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import ConfigError, unknown_name
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.paper.tables import DATASETS, published
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.output import ComputedOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN

if TYPE_CHECKING:
    from fedvlr_plugin.config import RunSpec
    from fedvlr_plugin.data.prepared import PreparedData

WIDTH = 64
OTHER_WIDTHS = (512, 32, 8)
CLIP_WIDTH = 512


@dataclass(frozen=True)
class Held:
    """What one client of this implementation stores, receives and sends, counted from tensors.

    Attributes:
        private: private dense parameters (head and router).
        own_rows: private item rows at most, in numbers.
        received, sent: numbers in one broadcast and in one upload; bytes at float32 beside them.
    """

    private: int
    own_rows: int
    received: int
    sent: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Cell:
    """One cell: the paper's thousands, the closed form's number, how they agree, and the client's real load."""

    row: str
    dataset: str
    paper_thousands: int
    closed_form: int
    verdict: str
    held: Held


def closed_form(row: str, users: int, items: int, width: int = WIDTH) -> int:
    """Client parameters of a row by the paper's counting, for a width other than 64 too.

    Raises `ConfigError` for a row that the paper's Table 3 does not have.
    """
    from fedvlr_plugin.backbones import BACKBONES
    from fedvlr_plugin.experiment.rows import parse_row

    parsed = parse_row(row)
    if parsed.backbone is not None and parsed.fusion is not None:
        count = BACKBONES.get(parsed.backbone).paper_parameters(parsed.fusion, users, items, width)
        if count is not None:
            return count
    raise ConfigError(f"row '{parsed.name}' has no closed form: the paper's Table 3 does not count its parameters")


def written_width(row: str, width: int) -> int:
    """The width as the form of the row is written with."""
    from fedvlr_plugin.backbones import BACKBONES
    from fedvlr_plugin.experiment.rows import parse_row

    parsed = parse_row(row)
    if parsed.backbone is None or parsed.fusion is None:
        return width
    return BACKBONES.get(parsed.backbone).paper_width(parsed.fusion, width)


def verdict(row: str, users: int, items: int, paper_thousands: int) -> str:
    """How the paper's cell relates to its closed form: follows, follows another width, or is off by so many K."""
    own = closed_form(row, users, items) // 1000
    if own == paper_thousands:
        return "follows"
    for width in OTHER_WIDTHS:
        other = closed_form(row, users, items, width)
        if paper_thousands in (other // 1000, (other + 500) // 1000):
            return f"ODD: follows width {written_width(row, width)}"
    return f"ODD: {paper_thousands - own:+d} K"


def held(row: str, items: int) -> Held:
    """Count a live client of the row on a data set with `items` items and two 512-wide modalities."""
    from fedvlr_plugin.config import RunSpec

    return held_by(RunSpec(dataset="counted", row=row), items, {"vision": CLIP_WIDTH, "text": CLIP_WIDTH})


def held_by(spec: RunSpec, items: int, modalities: Mapping[str, int]) -> Held:
    """Count a live client of a run, with its own widths and views.

    The client is alone in a federation of this process, whatever torchrun announced. What sits on top of the method
    (noise, masks, faults) is left out: the tensors are those of the plain protocol.

    Args:
        spec: the run.
        items: number of items.
        modalities: widths of the item features by name.
    """
    from fedvlr_plugin.config import Conditions, ExecutionConfig, TrainingConfig
    from fedvlr_plugin.experiment.rows import parse_row
    from fedvlr_plugin.experiment.run import build_federation
    from fedvlr_plugin.federation.distributed import Processes

    once = TrainingConfig(rounds=1, local_epochs=1)
    spec = spec.model_copy(update={"training": once, "conditions": Conditions()})
    execution = ExecutionConfig(engine="sequential")
    federation = build_federation(parse_row(spec.row), spec, execution, _minimal(items, modalities), Processes())
    broadcast = federation.server.broadcast()
    uplink = federation.round(1)
    client = federation.engine.clients[0]  # type: ignore[attr-defined]
    received, sent = list(broadcast.named().values()), list(uplink.sums.values())
    return Held(
        private=sum(leaf.numel() for leaf in client.dense()),
        own_rows=0 if client.own is None else client.own.numel(),
        received=sum(t.numel() for t in received),
        sent=sum(t.numel() for t in sent),
        received_bytes=sum(t.numel() * t.element_size() for t in received),
        sent_bytes=sum(t.numel() * t.element_size() for t in sent),
    )


def table3() -> list[Cell]:
    """Return all 16 rows on 7 data sets, in the paper's order."""
    from fedvlr_plugin.experiment.rows import federated_rows

    sizes = {line["dataset"]: (int(line["users"]), int(line["items"])) for line in published(1)}
    paper = {(_row(line), line["dataset"]): int(line["client_params_thousands"]) for line in published(3)}
    counted: dict[tuple[str, int], Held] = {}
    cells = []
    for row in (r for r in federated_rows() if any(key[0] == r for key in paper)):
        for dataset, (users, items) in sizes.items():
            thousands = paper[row, dataset]
            key = (row, items)
            if key not in counted:
                counted[key] = held(row, items)
            form = closed_form(row, users, items)
            cells.append(Cell(row, dataset, thousands, form, verdict(row, users, items, thousands), counted[key]))
    return cells


def _row(line: Mapping[str, str]) -> str:
    return line["model"] if line["variant"] == "-" else f"{line['model']}+{line['variant']}"


def _minimal(items: int, modalities: Mapping[str, int]) -> PreparedData:
    """Return one user with one training item: enough for every tensor to exist."""
    import numpy as np

    from fedvlr_plugin.data.interactions import Interactions
    from fedvlr_plugin.data.item_features import ItemFeatures, Modality
    from fedvlr_plugin.data.prepared import PreparedData

    interactions = Interactions.from_labels(
        np.array([0]), np.array([0]), np.array([0]), ("u",), tuple(f"i{i}" for i in range(items))
    )
    everything = np.ones(items, dtype=np.bool_)
    contents = [
        Modality(name, np.zeros((items, width), dtype=np.float32), everything) for name, width in modalities.items()
    ]
    return PreparedData("counted", interactions, ItemFeatures(contents))


NOTE = (
    "paper K: thousands of client parameters as printed in Table 3; closed form: that of the paper's own counting. "
    "private, private item rows (at most), received, sent: numbers counted from the tensors of one live client here "
    "(float32; one broadcast and one full upload a round). Closed forms with user vectors count those of every user, as the paper does."
)
HEADINGS = (
    "row", "data set", "paper K", "closed form", "agreement", "private", "private item rows", "received", "sent",
    "down MB", "up MB",
)  # fmt: skip


def table3_grid(cells: list[Cell]) -> Grid:
    """Return one line per cell, and below them how many follow the closed form."""
    odd = [f"{c.row} on {c.dataset} ({c.verdict.removeprefix('ODD: ')})" for c in cells if c.verdict != "follows"]
    count = f"{len(cells) - len(odd)} of {len(cells)} cells follow the closed form. Odd: {'; '.join(odd) or 'none'}."
    return Grid(HEADINGS, tuple(_line(cell) for cell in cells), (count, NOTE))


def _line(cell: Cell) -> tuple[str, ...]:
    counted = cell.held
    numbers = (counted.private, counted.own_rows, counted.received, counted.sent)
    sizes = (counted.received_bytes, counted.sent_bytes)
    return (
        cell.row,
        cell.dataset,
        str(cell.paper_thousands),
        f"{cell.closed_form:,}",
        cell.verdict,
        *(f"{number:,}" for number in numbers),
        *(f"{size / 2**20:.2f}" for size in sizes),
    )


def add_options(parser: ArgumentParser) -> None:
    """Add the options of Table 3."""
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="of the paper's seven; default: all of them")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table here (default: not written)")


def make(options: Namespace, say: Callable[[str], None]) -> None:
    """Print the table, and write it where a file is named.

    Raises:
        UnknownNameError: a data set that the paper does not have.
        ResultsError: the file cannot be written.
    """
    from fedvlr_plugin.reporting.table_formats import csv_table, print_grid, terminal

    datasets = [name.lower() for name in options.datasets or DATASETS]
    for name in datasets:
        if name not in DATASETS:
            raise unknown_name("data set", name, DATASETS)
    grid = table3_grid([cell for cell in table3() if cell.dataset.lower() in datasets])
    if options.csv is not None:
        text = csv_table(grid.headings, grid.lines)
        write_atomic(options.csv, text.encode(), hint="Name a file that you may write with --csv FILE")
    print_grid(grid, terminal())


TABLE3 = ComputedOutput(
    BUILT_IN["table3"].title,
    "Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing.",
    add_options,
    make,
)
