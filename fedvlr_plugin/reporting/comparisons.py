"""Statistics of a table, from the stored per-user ranks: intervals, and who beats whom.

Compared are, within each backbone, +MLP, +VBPR and +ours with the vanilla form and +ours with +MLP; all comparisons on
one data set, both metrics, are one family for Holm's correction, so that a data set's marks do not depend on which
others stand beside it. Each comparison is tested twice:

* over seeds and users (`evaluation.seed_and_user_test`): is the method better? There is a verdict only where each
  trained row has `MIN_SEEDS` seeds and is finished;
* over users alone (`evaluation.randomization`): do these trained models differ? A user's value is its mean over seeds.

A verdict asks for both: the seeds' variance can come out too small by chance, and a method is not called better where
its trained models do not differ. Holm corrects each test over the family.

A comparison without enough runs keeps its place in the family, so that the number of comparisons is that of the
table. The generators are seeded by the names of what is compared, so a table is the same each time it is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.metrics import hit_rate, ndcg
from fedvlr_plugin.evaluation.randomization import sign_flip_tests
from fedvlr_plugin.evaluation.ranks import Ranks
from fedvlr_plugin.evaluation.seed_and_user_test import (
    MIN_SEEDS,
    Estimate,
    seed_and_user_mean,
    seed_and_user_test,
)
from fedvlr_plugin.evaluation.significance import ALPHA, Interval, holm, mean_interval
from fedvlr_plugin.experiment.controls import control_label
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import CLOSED_FORMS
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric

FloatArray = npt.NDArray[np.float64]
PER_USER: Mapping[Metric, Callable[[Ranks], FloatArray]] = {"hr@50": hit_rate, "ndcg@50": ndcg}
AGAINST = {"MLP": ("",), "VBPR": ("",), "ours": ("", "MLP")}
CellKey = tuple[str, str]


Outcome = Literal["holds", "does not hold", "undecided", "not enough runs"]
LAST_TWENTIETH = 0.95


@dataclass(frozen=True)
class PerUser:
    """A cell's values in percent, by metric.

    Attributes:
        users: whose they are, `[n_users]`.
        values: `[n_users]`, averaged over seeds.
        seeds: `[n_seeds, n_users]`.
        varies: False for a closed form, which has no seed: one run says everything.
        shortage: why the runs are not enough for a verdict, see `shortage`.
    """

    users: IntArray
    values: Mapping[Metric, FloatArray]
    seeds: Mapping[Metric, FloatArray]
    varies: bool = True
    shortage: str = ""

    @property
    def n_seeds(self) -> int:
        """How many runs the values are averaged over."""
        return len(next(iter(self.seeds.values())))


@dataclass(frozen=True)
class Comparison:
    """One row less another on the same users.

    Attributes:
        difference: in points.
        users_p: over users alone, corrected over the family: do these trained models differ?
        adjusted_p: over seeds and users, corrected over the family: does one method beat the other? 1 where a trained
            row has one seed only.
        enough: whether both rows have the seeds and the rounds for a verdict.
    """

    difference: float
    users_p: float
    adjusted_p: float
    enough: bool

    @property
    def outcome(self) -> Outcome:
        """What both tests say of the claim that the first row is better."""
        if not self.enough:
            return "not enough runs"
        if max(self.adjusted_p, self.users_p) >= ALPHA:
            return "undecided"
        return "holds" if self.difference > 0 else "does not hold"


@dataclass(frozen=True)
class Pair:
    """Row `row` against row `against` on one data set, corrected over the data set's family."""

    dataset: str
    metric: Metric
    row: str
    against: str
    comparison: Comparison

    @property
    def better(self) -> bool | None:
        """True or False for a verdict, None for none."""
        return {"holds": True, "does not hold": False}.get(self.comparison.outcome)

    @property
    def models_better(self) -> bool | None:
        """True or False if these trained models differ over users, whatever other seeds would give; else None."""
        return self.comparison.difference > 0 if self.comparison.users_p < ALPHA else None


def per_user(store: ResultsStore, records: Sequence[RunRecord]) -> PerUser:
    """Read the test ranks of a cell's runs; raise `ResultsError` if they are not about the same users."""
    tables = [store.ranks(record, "test") for record in records]
    for record, ranks in zip(records, tables, strict=True):
        if not np.array_equal(ranks.users, tables[0].users):
            raise ResultsError(f"the runs of {record.dataset} {record.row} were evaluated on different users")
    seeds = {m: 100.0 * np.stack([PER_USER[m](ranks) for ranks in tables]) for m in METRICS}
    values = {m: table.mean(axis=0) for m, table in seeds.items()}
    return PerUser(tables[0].users, values, seeds, bool(_trained(records)) or len(records) > 1, shortage(records))


def shortage(records: Sequence[RunRecord]) -> str:
    """Return why a row's runs are not enough for a verdict: `3 of 5 seeds`, `unfinished`, both, or an empty string."""
    seeds = {r.seed for r in _trained(records)}
    few = f"{len(seeds)} of {MIN_SEEDS} seeds" if seeds and len(seeds) < MIN_SEEDS else ""
    return ", ".join(reason for reason in (few, "unfinished" if unfinished(records) else "") if reason)


def unfinished(records: Sequence[RunRecord]) -> bool:
    """Return whether most seeds found their best round among the last twentieth of those allowed."""
    late = [r.best_round > LAST_TWENTIETH * r.spec.training.rounds for r in _trained(records)]
    return sum(late) * 2 > len(late)


def _trained(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [r for r in records if r.rounds > 0 and r.row not in CLOSED_FORMS]


def interval(cell: PerUser, metric: Metric, key: CellKey) -> Interval:
    """The 95 % bootstrap interval of a cell's mean, in percent."""
    return mean_interval(cell.values[metric], rng_for("interval", *key, metric))


def method_interval(cell: PerUser, metric: Metric) -> Interval | None:
    """The 95 % interval of the method's mean over seeds and users; None for a trained row with one seed."""
    if cell.varies and cell.n_seeds < 2:
        return None
    return seed_and_user_mean(cell.seeds[metric], varies=cell.varies).interval()


def compare_rows(cells: Mapping[CellKey, PerUser]) -> list[Pair]:
    """Compare all rows within backbones, on every data set; see the module."""
    wanted = []
    for row, dataset in cells:
        backbone, _, variant = row.partition("+")
        for other_variant in AGAINST.get(variant, ()):
            wanted.append((row, f"{backbone}+{other_variant}" if other_variant else backbone, dataset))
    return _compare(cells, wanted)


def compare_with_controls(cells: Mapping[CellKey, PerUser]) -> list[Pair]:
    """Compare every row with its own shuffled control; on each data set they are a family of their own."""
    return _compare(cells, [(row, control_label(row), dataset) for row, dataset in cells])


def _compare(cells: Mapping[CellKey, PerUser], wanted: Sequence[tuple[str, str, str]]) -> list[Pair]:
    """Compare rows (row, other, data set) of which both are there; Holm's family is a data set with both metrics."""
    there = [place for place in wanted if (place[1], place[2]) in cells]
    pairs = []
    for dataset in dict.fromkeys(name for *_, name in there):
        found = [(metric, row, other) for row, other, name in there if name == dataset for metric in METRICS]
        family = [(metric, row, cells[row, dataset], other, cells[other, dataset]) for metric, row, other in found]
        compared = compare_family(family, dataset)
        pairs += [Pair(dataset, *names, comparison) for names, comparison in zip(found, compared, strict=True)]
    return pairs


def compare_family(family: Sequence[tuple[Metric, str, PerUser, str, PerUser]], dataset: str) -> list[Comparison]:
    """Compare rows in pairs, corrected by Holm over all of them; see the module for the two tests.

    Args:
        family: for each comparison the metric, the row and its values, the other row and its values.
        dataset: named in errors, and a part of the generator's seed.

    Raises:
        ResultsError: two rows were evaluated on different users.
    """
    for _, row, ours, other, theirs in family:
        if not np.array_equal(ours.users, theirs.users):
            raise ResultsError(f"{row} and {other} on {dataset} were evaluated on different users")
    names = [f"{row} {other} {metric}" for metric, row, _, other, _ in family]
    differences = [ours.values[metric] - theirs.values[metric] for metric, _, ours, _, theirs in family]
    users = holm([test.p for test in sign_flip_tests(differences, rng_for("family", dataset, *names))])
    methods = [_methods(ours, theirs, metric) for metric, _, ours, _, theirs in family]
    adjusted = holm([1.0 if estimate is None else estimate.p for estimate in methods])
    return [
        Comparison(float(difference.mean()), users_p, p, not (ours.shortage or theirs.shortage))
        for difference, users_p, p, (_, _, ours, _, theirs) in zip(differences, users, adjusted, family, strict=True)
    ]


def _methods(ours: PerUser, theirs: PerUser, metric: Metric) -> Estimate | None:
    """The test over seeds and users, None where a trained row has one seed."""
    if any(cell.varies and cell.n_seeds < 2 for cell in (ours, theirs)):
        return None
    return seed_and_user_test(ours.seeds[metric], theirs.seeds[metric], a_varies=ours.varies, b_varies=theirs.varies)


def rng_for(*names: str) -> np.random.Generator:
    """A generator seeded by names, the same each time."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
