"""Table 2 as data, made from the results store and from nothing else.

`build_table` takes the specifications a table consists of, looks their records up, and averages over seeds; what
is not stored is an empty cell. `table2_formats` writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.evaluation.significance import Interval
from fedvlr_plugin.experiment.controls import control_label, is_control, label_of
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import NEW_ITEMS, ONE_SHOT, REFERENCES, federated_rows
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric, paper_value
from fedvlr_plugin.reporting.comparisons import (
    Pair,
    PerUser,
    compare_rows,
    compare_with_controls,
    interval,
    method_interval,
    per_user,
)
from fedvlr_plugin.reporting.verdict import Verdict, judge


@dataclass(frozen=True)
class Figure:
    """One number of a cell, in percent.

    Attributes:
        mean: over seeds.
        sd: over seeds, None for one seed.
        n: number of seeds.
        interval: 95 % bootstrap over users.
        paper: the paper's figure, None where it has none.
        verdict: on the paper's figure, None where it has none.
        method_interval: 95 % over seeds and users, which the verdict uses; None for a trained row with one seed.
    """

    mean: float
    sd: float | None
    n: int
    interval: Interval
    paper: float | None
    verdict: Verdict | None
    method_interval: Interval | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, in points."""
        return None if self.paper is None else self.mean - self.paper


@dataclass(frozen=True)
class Cell:
    """One row on one data set: its runs and what follows from them. `warm` and `cold` are HR@50, None without users."""

    row: str
    dataset: str
    records: tuple[RunRecord, ...]
    figures: Mapping[Metric, Figure]
    warm: float | None
    cold: float | None
    cold_share: float


@dataclass(frozen=True)
class Table:
    """Cells by (row, data set) in the order of `rows` and `datasets`; a cell that was not run is absent.

    `other_versions` counts stored runs that were left out because they were made on another version of a data set.
    The shuffled control of a row is a line of its own below it; `control_pairs` holds each row against its control.
    """

    rows: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    wanted: Mapping[tuple[str, str], int]
    pairs: tuple[Pair, ...] = ()
    profile: str | None = None
    other_versions: int = 0
    control_pairs: tuple[Pair, ...] = ()

    def figure(self, row: str, dataset: str, metric: Metric) -> Figure | None:
        """The number, or None if no run of the cell is stored."""
        cell = self.cells.get((row, dataset))
        return None if cell is None else cell.figures[metric]

    def verdict(self, row: str, dataset: str, metric: Metric) -> Verdict | None:
        """The verdict on the paper's figure, `not run` included; None where the paper has no such cell."""
        figure = self.figure(row, dataset, metric)
        return judge(row, dataset, metric, None, None, None) if figure is None else figure.verdict

    def pairs_of(self, row: str, dataset: str, metric: Metric) -> list[Pair]:
        """The comparisons of the row with others of its backbone."""
        return [pair for pair in self.pairs if (pair.row, pair.dataset, pair.metric) == (row, dataset, metric)]

    def best(self, dataset: str, metric: Metric) -> str | None:
        """The federated row with the highest mean (the paper's bold type), None if there is none."""
        found = [
            (cell.figures[metric].mean, row)
            for (row, name), cell in self.cells.items()
            if name == dataset and kind_of(row) == "federated"
        ]
        return max(found)[1] if found else None


def kind_of(row: str) -> str:
    """`floor`, `federated`, `control` or `recbole`, without raising for rows that this installation does not know.

    A centralized closed form and a row with the bonus for new items are there to be compared with, as floors are.
    """
    if is_control(row):
        return "control"
    if row in REFERENCES or row.endswith(f" & {NEW_ITEMS}"):
        return "floor"
    return "federated" if row in federated_rows() or row in ONE_SHOT else "recbole"


def build_table(
    store: ResultsStore,
    specs: Sequence[RunSpec],
    fingerprints: Mapping[str, str] | None = None,
    profile: str | None = None,
    rows: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> Table:
    """The table of some specifications.

    Args:
        store: where the runs are.
        specs: the runs the table consists of, in the table's order.
        fingerprints: data set -> fingerprint of the data in hand; records of other data are left aside. Without it
            the version of each data set with most runs counts. The caption says how many runs of others there are.
        profile: named in the caption.
        rows, datasets: what the table has, in order; empty = those of the specifications.

    Raises:
        ResultsError: a stored file is damaged.
    """
    rows = _with_controls(tuple(rows) or tuple(dict.fromkeys(spec.row for spec in specs)), specs)
    datasets = tuple(datasets) or tuple(dict.fromkeys(spec.dataset for spec in specs))
    records = store.records({spec.spec_hash for spec in specs})
    if fingerprints is None:
        fingerprints = main_versions(records)
    shown = [r for r in records if r.row in rows and r.dataset in datasets]
    others = count_others(shown, fingerprints)
    records = [r for r in records if fingerprints.get(r.dataset) == r.data.fingerprint]
    wanted: dict[tuple[str, str], int] = {}
    for spec in specs:
        place = label_of(spec), spec.dataset
        wanted[place] = wanted.get(place, 0) + 1
    cells: dict[tuple[str, str], Cell] = {}
    users: dict[tuple[str, str], PerUser] = {}
    for row in rows:
        for dataset in datasets:
            mine = tuple(r for r in records if (label_of(r.spec), r.dataset) == (row, dataset))
            if mine:
                users[row, dataset] = per_user(store, mine)
                cells[row, dataset] = _cell(row, dataset, mine, users[row, dataset])
    pairs, control_pairs = tuple(compare_rows(users)), tuple(compare_with_controls(users))
    return Table(rows, datasets, cells, wanted, pairs, profile, others, control_pairs)


def _with_controls(rows: Sequence[str], specs: Sequence[RunSpec]) -> tuple[str, ...]:
    """The rows, each followed by the line of its control where one of the specifications asks for it."""
    asked = {label_of(spec) for spec in specs if spec.control != "none"}
    lines = [line for row in rows for line in (row, control_label(row)) if line == row or line in asked]
    return tuple(dict.fromkeys(lines))


def _cell(row: str, dataset: str, records: tuple[RunRecord, ...], users: PerUser) -> Cell:
    figures: dict[Metric, Figure] = {}
    for metric in METRICS:
        values = np.array([record.test[metric] for record in records])
        mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
        around = interval(users, metric, (row, dataset))
        method = method_interval(users, metric)
        verdict = judge(row, dataset, metric, mean, method or around, records[0].data, users.shortage)
        figures[metric] = Figure(mean, sd, len(values), around, paper_value(row, dataset, metric), verdict, method)
    return Cell(
        row,
        dataset,
        records,
        figures,
        warm=_mean_of(records, "hr@50_warm"),
        cold=_mean_of(records, "hr@50_cold"),
        cold_share=records[0].test["cold_share"],
    )


def _mean_of(records: Sequence[RunRecord], key: str) -> float | None:
    values = [record.test[key] for record in records if key in record.test]
    return float(np.mean(values)) if values else None


def main_versions(records: Sequence[RunRecord]) -> dict[str, str]:
    """Fingerprint of each data set with most runs (of equals the lesser), by data set.

    Features that are computed when a data set is read may differ in the last digit between machines, and then make
    another version.
    """
    counts = Counter((record.dataset, record.data.fingerprint) for record in records)
    best: dict[str, str] = {}
    for (dataset, fingerprint), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        best.setdefault(dataset, fingerprint)
    return best


def count_others(records: Sequence[RunRecord], fingerprints: Mapping[str, str]) -> int:
    """How many records of the named data sets were made on another version of them."""
    return sum(fingerprints.get(r.dataset, r.data.fingerprint) != r.data.fingerprint for r in records)


def left_out(others: int) -> list[str]:
    """One line about runs on other versions of the data, or none where there are none."""
    if not others:
        return []
    runs = "1 stored run was" if others == 1 else f"{others} stored runs were"
    return [f"{runs} made on another version of the data and left out; a table never mixes two versions of a data set."]
