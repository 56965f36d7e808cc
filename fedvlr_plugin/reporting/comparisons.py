"""Statistics of a table, from the stored per-user ranks: intervals, and who beats whom.

A cell's value for a user is the mean over its seeds. Compared are, within each backbone, +MLP, +VBPR and +ours with
the vanilla form and +ours with +MLP; all comparisons on one data set, both metrics, are one family for Holm's
correction, so that a data set's marks do not depend on which others stand beside it. The generators are seeded by the names of what is compared, so a table is the same each time it is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.metrics import hit_rate, ndcg
from fedvlr_plugin.evaluation.ranks import Ranks
from fedvlr_plugin.evaluation.significance import ALPHA, Comparison, Interval, compare, holm, mean_interval
from fedvlr_plugin.experiment.controls import control_label
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric

FloatArray = npt.NDArray[np.float64]
PER_USER: Mapping[Metric, Callable[[Ranks], FloatArray]] = {"hr@50": hit_rate, "ndcg@50": ndcg}
AGAINST = {"MLP": ("",), "VBPR": ("",), "ours": ("", "MLP")}
CellKey = tuple[str, str]


@dataclass(frozen=True)
class PerUser:
    """A cell's values in percent, by metric, averaged over seeds; `users` says whose they are."""

    users: IntArray
    values: Mapping[Metric, FloatArray]


@dataclass(frozen=True)
class Pair:
    """Row `row` against row `against` on one data set: in points, with p corrected over the data set's family."""

    dataset: str
    metric: Metric
    row: str
    against: str
    comparison: Comparison
    adjusted_p: float

    @property
    def better(self) -> bool | None:
        """True or False if the difference is significant after correction, None if it is not."""
        return self.comparison.difference > 0 if self.adjusted_p < ALPHA else None


def per_user(store: ResultsStore, records: Sequence[RunRecord]) -> PerUser:
    """Reads the test ranks of a cell's runs; raises `ResultsError` if they are not about the same users."""
    tables = [store.ranks(record, "test") for record in records]
    for record, ranks in zip(records, tables, strict=True):
        if not np.array_equal(ranks.users, tables[0].users):
            raise ResultsError(f"the runs of {record.dataset} {record.row} were evaluated on different users")
    values = {m: 100.0 * np.mean([PER_USER[m](ranks) for ranks in tables], axis=0) for m in METRICS}
    return PerUser(tables[0].users, values)


def interval(cell: PerUser, metric: Metric, key: CellKey) -> Interval:
    """The 95 % bootstrap interval of a cell's mean, in percent."""
    return mean_interval(cell.values[metric], rng_for("interval", *key, metric))


def compare_rows(cells: Mapping[CellKey, PerUser]) -> list[Pair]:
    """All comparisons within backbones, on every data set; see the module."""
    wanted = []
    for row, dataset in cells:
        backbone, _, variant = row.partition("+")
        for other_variant in AGAINST.get(variant, ()):
            wanted.append((row, f"{backbone}+{other_variant}" if other_variant else backbone, dataset))
    return _compare(cells, wanted)


def compare_with_controls(cells: Mapping[CellKey, PerUser]) -> list[Pair]:
    """Every row against its own shuffled control; on each data set they are a family of their own."""
    return _compare(cells, [(row, control_label(row), dataset) for row, dataset in cells])


def _compare(cells: Mapping[CellKey, PerUser], wanted: Sequence[tuple[str, str, str]]) -> list[Pair]:
    """Compare rows (row, other, data set) of which both are there; Holm's family is a data set with both metrics."""
    found: list[tuple[str, Metric, str, str, Comparison]] = []
    for row, other, dataset in wanted:
        if (other, dataset) not in cells:
            continue
        cell, theirs = cells[row, dataset], cells[other, dataset]
        if not np.array_equal(theirs.users, cell.users):
            raise ResultsError(f"{row} and {other} on {dataset} were evaluated on different users")
        for metric in METRICS:
            rng = rng_for("pair", row, other, dataset, metric)
            found.append((dataset, metric, row, other, compare(cell.values[metric], theirs.values[metric], rng)))
    pairs = []
    for dataset in dict.fromkeys(name for name, *_ in found):
        family = [each for each in found if each[0] == dataset]
        adjusted = holm([comparison.p for *_, comparison in family])
        pairs += [Pair(*each, p) for each, p in zip(family, adjusted, strict=True)]
    return pairs


def rng_for(*names: str) -> np.random.Generator:
    """A generator seeded by names, the same each time."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
