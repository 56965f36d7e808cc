"""The paper's claims about Table 2, held against stored runs: holds, does not hold, or undecided.

A claim says that one row beats another. It holds where the difference is significant in its direction (paired
randomisation test over users, corrected by Holm), it does not where it is significant in the other, else it is
undecided. The same claim is read off the paper's own figures, which have no test. Claims:

    +ours beats the vanilla row, +ours beats +MLP            for every backbone (the table's own comparisons)
    the best +ours row beats the best centralized row        each chosen by validation NDCG@50, never by test
    the best federated row beats the floor `cold-first`      likewise; not a claim of the paper's, but what it needs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedvlr_plugin.evaluation.significance import ALPHA, compare, holm
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name, paper_value
from fedvlr_plugin.reporting.captions import PLANTED
from fedvlr_plugin.reporting.comparisons import PerUser, per_user, rng_for
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Cell, Table, kind_of

Word = Literal["holds", "does not hold", "undecided"]
COLD_FIRST = "cold-first"
BY_CONTENT = "the row gains by content (beats its own shuffled control)"


@dataclass(frozen=True)
class Finding:
    """One pair on one data set by one metric.

    Attributes:
        claim: in words. better, worse: the row that is claimed to be better, and the other.
        difference: in points. p: corrected. paper: whether the paper's figures say so, None where it has not both.
    """

    claim: str
    dataset: str
    metric: Metric
    better: str
    worse: str
    difference: float
    p: float
    paper: bool | None

    @property
    def word(self) -> Word:
        """What the test says."""
        if self.p >= ALPHA:
            return "undecided"
        return "holds" if self.difference > 0 else "does not hold"


def findings(store: ResultsStore, table: Table) -> list[Finding]:
    """Everything that the stored cells can say, claim by claim; made-up data say nothing."""
    found = [
        _finding(f"+ours beats {what}", pair.dataset, pair.metric, pair.row, pair.against, pair.comparison.difference,
                 pair.adjusted_p)
        for what, mlp in (("the vanilla row", False), ("+MLP", True))
        for pair in table.pairs
        if pair.row.endswith("+ours") and pair.against.endswith("+MLP") == mlp
    ]  # fmt: skip
    found += [
        _finding(BY_CONTENT, pair.dataset, pair.metric, pair.row, pair.against, pair.comparison.difference,
                 pair.adjusted_p)
        for pair in table.control_pairs
    ]  # fmt: skip
    return [f for f in found + _between_kinds(store, table) if f.dataset != PLANTED]


def _between_kinds(store: ResultsStore, table: Table) -> list[Finding]:
    """Claims about the best row of a kind; they are one family for Holm."""
    open_pairs: list[tuple[str, str, Metric, Cell, Cell]] = []
    for dataset in table.datasets:
        cells = [cell for (_, name), cell in table.cells.items() if name == dataset]
        ours = _best(cells, lambda row: row.endswith("+ours"))
        centralized = _best(cells, lambda row: kind_of(row) == "recbole")
        federated = _best(cells, lambda row: kind_of(row) == "federated")
        floor = table.cells.get((COLD_FIRST, dataset))
        for metric in METRICS:
            if ours is not None and centralized is not None:
                open_pairs.append(
                    ("the best +ours row beats the best centralized row", dataset, metric, ours, centralized)
                )
            if federated is not None and floor is not None:
                open_pairs.append(("the best federated row beats cold-first", dataset, metric, federated, floor))
    users: dict[tuple[str, str], PerUser] = {}
    tested = []
    for _, dataset, metric, one, two in open_pairs:
        for cell in (one, two):
            users.setdefault((cell.row, dataset), per_user(store, cell.records))
        a, b = users[one.row, dataset].values[metric], users[two.row, dataset].values[metric]
        tested.append(compare(a, b, rng_for("claim", one.row, two.row, dataset, metric)))
    adjusted = holm([comparison.p for comparison in tested])
    return [
        _finding(claim, dataset, metric, one.row, two.row, comparison.difference, p)
        for (claim, dataset, metric, one, two), comparison, p in zip(open_pairs, tested, adjusted, strict=True)
    ]


def _best(cells: Sequence[Cell], of_kind: Callable[[str], bool]) -> Cell | None:
    """The cell with the highest mean validation NDCG@50."""
    mine = [cell for cell in cells if of_kind(cell.row)]
    return max(mine, key=lambda c: float(np.mean([r.valid["ndcg@50"] for r in c.records])), default=None)


def _finding(claim: str, dataset: str, metric: Metric, better: str, worse: str, difference: float, p: float) -> Finding:
    theirs = paper_value(better, dataset, metric), paper_value(worse, dataset, metric)
    paper = None if theirs[0] is None or theirs[1] is None else theirs[0] > theirs[1]
    return Finding(claim, dataset, metric, better, worse, difference, p, paper)


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
                *(_spelled(mine, word) for word in ("holds", "does not hold", "undecided")),
            )
        )
    note = (
        "Pairs of rows and the difference in points: significant as claimed, significant the other way, or neither (5 %, "
        "paired randomisation over users, Holm). Paper: in how many pairs its own figures point the claimed way. Best "
        "rows are chosen by validation."
    )
    headings = ("claim", "data set", "metric", "paper", "holds", "does not hold", "undecided")
    return Grid(headings, tuple(lines), (note,))


def _spelled(found: Sequence[Finding], word: Word) -> str:
    """`FedAvg -2.00, FCF -0.21`; both names where the two rows are of different backbones."""
    texts = []
    for f in found:
        if f.word == word:
            backbone = f.better.partition("+")[0]
            same = f.worse.partition("+")[0] == backbone
            name = backbone if same else f"{f.better} over {f.worse}"
            texts.append(f"{name} {f.difference:+.2f}")
    return ", ".join(texts)
