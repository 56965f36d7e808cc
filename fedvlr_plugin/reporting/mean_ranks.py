"""Beyond one table: mean ranks of the rows over data sets, and two results stores side by side.

Ranks: on each data set the rows are ranked by test NDCG@50 (1 = best, ties shared) and averaged; two rows differ
by more than chance when their mean ranks are further apart than Nemenyi's critical difference
`q(alpha; k, inf) / sqrt(2) * sqrt(k (k + 1) / (6 N))` for k rows on N data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.randomization import sign_flip_tests
from fedvlr_plugin.evaluation.significance import ALPHA, holm
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.comparisons import FloatArray, per_user, rng_for
from fedvlr_plugin.reporting.grid import Grid, format_count
from fedvlr_plugin.reporting.results_table import Table
from fedvlr_plugin.reporting.stored_runs import stored_profiles, stored_table


def critical_difference(rows: int, datasets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of mean ranks."""
    q = float(stats.studentized_range.ppf(1 - alpha, rows, np.inf)) / math.sqrt(2)
    return q * math.sqrt(rows * (rows + 1) / (6 * datasets))


def rank_grid(table: Table) -> Grid:
    """Mean rank of every row that was run on all data sets, best first; rows that were not are named below.

    A column for what Nemenyi's test tells apart is there only where it tells some row from the best.

    Raises `ResultsError` with fewer than two data sets or rows to rank.
    """
    rows = [row for row in table.rows if all((row, dataset) in table.cells for dataset in table.datasets)]
    if len(table.datasets) < 2 or len(rows) < 2:
        raise ResultsError(
            f"ranks need at least two rows that were run on each of at least two data sets, got {format_count(len(rows), 'row')} on "
            f"{format_count(len(table.datasets), 'data set')}{_in_brackets(unranked(table))}; run more with benchmarks/run_table2.py"
        )
    values = np.array([[table.cells[row, d].figures["ndcg@50"].mean for d in table.datasets] for row in rows])
    ranks = stats.rankdata(-values, axis=0)
    means = ranks.mean(axis=1)
    difference = critical_difference(len(rows), len(table.datasets))
    worse = means - means.min() > difference
    verdicts = [("worse than the best" if w else "",) for w in worse] if worse.any() else [()] * len(rows)
    lines = tuple(
        (rows[i], float(means[i]), *(f"{rank:g}" for rank in ranks[i]), *verdicts[i])
        for i in np.argsort(means, kind="stable")
    )
    note = (
        f"Ranks by test NDCG@50 of {len(rows)} rows on {len(table.datasets)} data sets. Nemenyi's critical difference "
        f"at 5 % is {difference:.2f}: mean ranks closer than that are not told apart."
        + ("" if worse.any() else " No row is that far from the best.")
    )
    headings = ("row", "mean rank", *table.datasets, *(("Nemenyi",) if worse.any() else ()))
    return Grid(headings, lines, (note, *unranked(table)))


def unranked(table: Table) -> list[str]:
    """A line for each choice of data sets that some rows were not run on: which, and the rows."""
    by_missing: dict[tuple[str, ...], list[str]] = {}
    for row in table.rows:
        missing = tuple(dataset for dataset in table.datasets if (row, dataset) not in table.cells)
        if missing:
            by_missing.setdefault(missing, []).append(row)
    return [f"Not ranked, because not run on {', '.join(m)}: {', '.join(rows)}." for m, rows in by_missing.items()]


def _in_brackets(lines: Sequence[str]) -> str:
    return f" ({' '.join(line.rstrip('.') for line in lines)})" if lines else ""


def compare_stores(one: ResultsStore, two: ResultsStore) -> Grid:
    """Every cell that both stores have under the same profile and protocol: B less A, paired over users, Holm.

    Raises `ResultsError` if one is empty or they have no cell in common.
    """
    profiles = [stored_profiles(store) for store in (one, two)]
    for store, stored in zip((one, two), profiles, strict=True):
        if not stored:
            raise ResultsError(f"no runs are stored in '{store.root}'; give two results folders")
    found: list[tuple[str, str, str, str, float, float, FloatArray | None]] = []
    for profile, protocol in [pair for pair in profiles[0] if pair in profiles[1]]:
        tables = stored_table(one, profile, protocol), stored_table(two, profile, protocol)
        for key, cell in tables[0].cells.items():
            other = tables[1].cells.get(key)
            if other is None:
                continue
            a, b = per_user(one, cell.records), per_user(two, other.records)
            same = cell.records[0].data.fingerprint == other.records[0].data.fingerprint
            for metric in METRICS:
                known = same and np.array_equal(a.users, b.users)
                difference = b.values[metric] - a.values[metric] if known else None
                means = cell.figures[metric].mean, other.figures[metric].mean
                found.append((f"{profile} {protocol}", key[1], key[0], metric, *means, difference))
    if not found:
        raise ResultsError(
            f"'{one.root}' and '{two.root}' have no cell in common (same profile, protocol, data set, row)"
        )
    return Grid(
        ("profile", "data set", "row", "metric", "A", "B", "B - A", "p (Holm)"),
        tuple(
            (*names, a, b, f"{b - a:+.2f}", "other data" if p is None else f"{p:.4f}")
            for (*names, a, b, _), p in zip(found, _corrected([line[-1] for line in found]), strict=True)
        ),
        (f"A: {one.root}. B: {two.root}. Test metrics in percent; p of a paired randomization test over users.",),
    )


def _corrected(differences: Sequence[FloatArray | None]) -> list[float | None]:
    tests = sign_flip_tests([d for d in differences if d is not None], rng_for("stores"))
    known = iter(holm([test.p for test in tests]))
    return [None if difference is None else next(known) for difference in differences]
