"""The paper's claims about Table 2, held against stored runs: holds, does not hold, undecided, or not enough runs.

A claim says that one row beats another. It holds where the difference is significant in its direction over seeds and
users, and over users alone (`comparisons`, corrected by Holm), it does not where it is significant in the other, else
it is undecided. Where one of the two has fewer than five seeds or is not finished there are not enough runs for a
verdict; a closed form has one run and needs no more. The same claim is read off the paper's own figures, which have no test. Claims:

    +ours beats the vanilla row, +ours beats +MLP            for every backbone (the table's own comparisons)
    the best +ours row beats the best centralized row        each chosen by validation NDCG@50, never by test
    the best federated row beats the floor `cold-first`      likewise; not a claim of the paper's, but what it needs
    a row gains by content                                   it beats its own shuffled control; not the paper's either

A family for Holm is what stands in one table on one data set: the comparisons within backbones, apart from them those
with shuffled controls, and apart from both the claims between kinds of rows. So no verdict depends on which data sets
stand beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedvlr_plugin.evaluation.seed_and_user_test import MIN_SEEDS
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name, paper_value
from fedvlr_plugin.reporting.captions import PLANTED
from fedvlr_plugin.reporting.comparisons import Comparison, Outcome, compare_family, per_user
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Cell, Table, kind_of

WORDS: tuple[Outcome, ...] = ("holds", "does not hold", "undecided", "not enough runs")
COLD_FIRST = "cold-first"
BY_CONTENT = "the row gains by content (beats its own shuffled control)"


@dataclass(frozen=True)
class Finding:
    """One pair on one data set by one metric.

    Attributes:
        claim: in words. better, worse: the row that is claimed to be better, and the other.
        comparison: the difference in points and its tests.
        paper: whether the paper's figures say so, None where it has not both.
    """

    claim: str
    dataset: str
    metric: Metric
    better: str
    worse: str
    comparison: Comparison
    paper: bool | None

    @property
    def difference(self) -> float:
        """In points."""
        return self.comparison.difference

    @property
    def word(self) -> Outcome:
        """What the test over seeds and users says."""
        return self.comparison.outcome


def findings(store: ResultsStore, table: Table) -> list[Finding]:
    """Everything that the stored cells can say, claim by claim; made-up data say nothing."""
    found = [
        _finding(f"+ours beats {what}", pair.dataset, pair.metric, pair.row, pair.against, pair.comparison)
        for what, mlp in (("the vanilla row", False), ("+MLP", True))
        for pair in table.pairs
        if pair.row.endswith("+ours") and pair.against.endswith("+MLP") == mlp
    ]  # fmt: skip
    found += [
        _finding(BY_CONTENT, pair.dataset, pair.metric, pair.row, pair.against, pair.comparison)
        for pair in table.control_pairs
    ]
    return [f for f in found + _between_kinds(store, table) if f.dataset != PLANTED]


def _between_kinds(store: ResultsStore, table: Table) -> list[Finding]:
    """Claims about the best row of a kind; those on one data set are one family for Holm."""
    found = []
    for dataset in table.datasets:
        cells = [cell for (_, name), cell in table.cells.items() if name == dataset]
        ours = _best(cells, lambda row: row.endswith("+ours"))
        centralized = _best(cells, lambda row: kind_of(row) == "recbole")
        federated = _best(cells, lambda row: kind_of(row) == "federated")
        floor = table.cells.get((COLD_FIRST, dataset))
        claimed = (
            ("the best +ours row beats the best centralized row", ours, centralized),
            ("the best federated row beats cold-first", federated, floor),
        )
        pairs = [(claim, one, two) for claim, one, two in claimed if one is not None and two is not None]
        users = {cell.row: per_user(store, cell.records) for _, *both in pairs for cell in both}
        family = [(metric, claim, one.row, two.row) for claim, one, two in pairs for metric in METRICS]
        compared = compare_family(
            [(metric, one, users[one], two, users[two]) for metric, _, one, two in family], dataset
        )
        found += [
            _finding(claim, dataset, metric, one, two, comparison)
            for (metric, claim, one, two), comparison in zip(family, compared, strict=True)
        ]
    return found


def _best(cells: Sequence[Cell], of_kind: Callable[[str], bool]) -> Cell | None:
    """The cell with the highest mean validation NDCG@50."""
    mine = [cell for cell in cells if of_kind(cell.row)]
    return max(mine, key=lambda c: float(np.mean([r.valid["ndcg@50"] for r in c.records])), default=None)


def _finding(claim: str, dataset: str, metric: Metric, better: str, worse: str, comparison: Comparison) -> Finding:
    theirs = paper_value(better, dataset, metric), paper_value(worse, dataset, metric)
    paper = None if theirs[0] is None or theirs[1] is None else theirs[0] > theirs[1]
    return Finding(claim, dataset, metric, better, worse, comparison, paper)


def claims_grid(found: Sequence[Finding]) -> Grid:
    """One line per claim, data set and metric: how many pairs the paper's figures and ours support, and which."""
    lines = []
    names = list(dict.fromkeys(f.claim for f in found))
    places = dict.fromkeys((f.claim, f.dataset, f.metric) for f in found)
    for claim, dataset, metric in sorted(places, key=lambda place: names.index(place[0])):
        mine = [f for f in found if (f.claim, f.dataset, f.metric) == (claim, dataset, metric)]
        known = [f for f in mine if f.paper is not None]
        paper = f"{sum(bool(f.paper) for f in known)} of {len(known)}" if known else ""
        lines.append(
            (
                claim,
                display_name(dataset),
                metric.upper(),
                paper,
                *(_spelled(mine, word) for word in WORDS),
            )
        )
    note = (
        "Pairs of rows and the difference in points: significant as claimed, significant the other way, or neither (5 %, "
        "over seeds and users by a two-way random-effects model, and over users by randomization; Holm over a data set's "
        "comparisons). Not enough runs: "
        f"fewer than {MIN_SEEDS} seeds, or best among the last twentieth of the rounds. Paper: in how many pairs its own "
        "figures point the claimed way. Best rows are chosen by validation."
    )
    headings = ("claim", "data set", "metric", "paper", *WORDS)
    return Grid(headings, tuple(lines), (note,))


def _spelled(found: Sequence[Finding], word: Outcome) -> str:
    """`FedAvg -2.00, FCF -0.21`; both names where the two rows are of different backbones."""
    texts = []
    for f in found:
        if f.word == word:
            backbone = f.better.partition("+")[0]
            same = f.worse.partition("+")[0] == backbone
            name = backbone if same else f"{f.better} over {f.worse}"
            texts.append(f"{name} {f.difference:+.2f}")
    return ", ".join(texts)
