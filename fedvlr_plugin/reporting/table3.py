"""Table 3, client parameters: the paper's figure, the closed form behind it, and what a client here really holds.

The closed forms are those of algorithm.md section 9, written in the width w (64 in the paper); each backbone has its own
(`Backbone.paper_parameters`).

Thousands are cut, not rounded. A cell that does not follow its form at w = 64 is looked up at other widths, cut or
rounded, and named. The last columns come
from live tensors of this implementation, no formula: a client's private parameters, and the numbers and bytes of one
broadcast and one upload. No training happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import Conditions, ExecutionConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import federated_rows, parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.federation.distributed import Processes
from fedvlr_plugin.paper.tables import published

WIDTH = 64
OTHER_WIDTHS = (512, 32, 8)
CLIP_WIDTH = 512


@dataclass(frozen=True)
class Held:
    """What one client of this implementation stores, receives and sends, counted from tensors.

    Attributes:
        private: private dense parameters (head and router). own_rows: private item rows at most, in numbers.
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
    parsed = parse_row(row)
    if parsed.backbone is not None and parsed.fusion is not None:
        count = BACKBONES.get(parsed.backbone).paper_parameters(parsed.fusion, users, items, width)
        if count is not None:
            return count
    raise ConfigError(f"row '{parsed.name}' has no closed form: the paper's Table 3 does not count its parameters")


def written_width(row: str, width: int) -> int:
    """The width as the form of the row is written with."""
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
    """Counts a live client of the row on a data set with `items` items and two 512-wide modalities."""
    return held_by(RunSpec(dataset="counted", row=row), items, {"vision": CLIP_WIDTH, "text": CLIP_WIDTH})


def held_by(spec: RunSpec, items: int, modalities: Mapping[str, int]) -> Held:
    """Counts a live client of a run, with its own widths and views; `modalities` are widths by name.

    The client is alone in a federation of this process, whatever torchrun announced.

    What sits on top of the method (noise, masks, faults) is left out: the tensors are those of the plain protocol.
    """
    once = TrainingConfig(rounds=1, local_epochs=1)
    spec = spec.model_copy(update={"training": once, "conditions": Conditions()})
    execution = ExecutionConfig(engine="sequential")
    federation = build_federation(parse_row(spec.row), spec, execution, _minimal(items, modalities), Processes())
    broadcast = federation.server.broadcast()
    uplink = federation.round(1)
    client = federation.engine.clients[0]  # type: ignore[attr-defined]
    received, sent = list(broadcast.values()), list(uplink.sums.values())
    return Held(
        private=sum(leaf.numel() for leaf in client.dense()),
        own_rows=0 if client.own is None else client.own.numel(),
        received=sum(t.numel() for t in received),
        sent=sum(t.numel() for t in sent),
        received_bytes=sum(t.numel() * t.element_size() for t in received),
        sent_bytes=sum(t.numel() * t.element_size() for t in sent),
    )


def table3() -> list[Cell]:
    """All 16 rows x 7 data sets, in the paper's order."""
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
    """One user with one training item: enough for every tensor to exist."""
    interactions = Interactions.from_labels(
        np.array([0]), np.array([0]), np.array([0]), ("u",), tuple(f"i{i}" for i in range(items))
    )
    everything = np.ones(items, dtype=np.bool_)
    contents = [
        Modality(name, np.zeros((items, width), dtype=np.float32), everything) for name, width in modalities.items()
    ]
    return PreparedData("counted", interactions, ItemFeatures(contents))
