"""What the paper printed, as data: its Tables 1 to 4, shipped as csv files beside this module.

An empty cell of Table 2 is one of the paper's failed runs. Names are translated to ours here and nowhere else:
data sets are lower case, a row is `backbone+variant`.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

Metric = Literal["hr@50", "ndcg@50"]
METRICS: tuple[Metric, ...] = ("hr@50", "ndcg@50")
DATASETS: Mapping[str, str] = MappingProxyType(
    {name.lower(): name for name in ("Beauty", "Cards", "ML", "KU", "Dance", "Food", "Movie")}
)


@functools.cache
def published(number: int) -> tuple[Mapping[str, str], ...]:
    """The lines of the paper's Table `number` (1 to 4), as strings by column name."""
    text = (files("fedvlr_plugin.paper") / f"table{number}.csv").read_text(encoding="utf-8")
    return tuple(MappingProxyType(line) for line in csv.DictReader(text.splitlines()))


@functools.cache
def table2() -> Mapping[tuple[str, str], Mapping[Metric, float | None]]:
    """(row, data set) -> metric -> percent, None for a failed run of the paper."""
    cells: dict[tuple[str, str], Mapping[Metric, float | None]] = {}
    for line in published(2):
        row = line["model"] if line["variant"] == "-" else f"{line['model']}+{line['variant']}"
        hr, ndcg = (float(line[column]) if line[column] else None for column in ("hr50", "ndcg50"))
        cells[row, line["dataset"].lower()] = MappingProxyType({"hr@50": hr, "ndcg@50": ndcg})
    return MappingProxyType(cells)


def paper_value(row: str, dataset: str, metric: Metric) -> float | None:
    """The paper's figure in percent; None where Table 2 has no such cell or the run failed."""
    cell = table2().get((row, dataset))
    return None if cell is None else cell[metric]


def paper_failed(row: str, dataset: str) -> bool:
    """Whether Table 2 has the cell, as a failed run."""
    cell = table2().get((row, dataset))
    return cell is not None and cell["hr@50"] is None


def display_name(dataset: str) -> str:
    """The paper's spelling of a data set's name, or the name itself."""
    return DATASETS.get(dataset, dataset)
