"""Figure 2: what the routers learned, by user activity: weight of each view, spread between users, accuracy.

Users are put into four groups by the number of their training items. Heterogeneity of a group is the mean over its
users of the distance (total variation, 0..1) of their weights from the mean weights of all users. Everything is read
from the store (router weights, ranks, history sizes), and averaged over seeds. Imports `store`, `statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.statistics import per_user
from fedvlr_plugin.benchmark.table import Table
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.store import ResultsStore

GROUPS = 4


@dataclass(frozen=True)
class RouterGroup:
    """Users of one activity group under one row. `weights` by view, `spread` their standard deviation over users."""

    dataset: str
    row: str
    protocol: str
    seeds: tuple[int, ...]
    least: int
    most: int
    users: int
    weights: dict[str, float]
    spread: dict[str, float]
    heterogeneity: float
    hr: float
    ndcg: float


def router_groups(store: ResultsStore, records: Sequence[RunRecord]) -> list[RouterGroup]:
    """The groups of one cell (its runs with all seeds); empty for a row without routers."""
    kept = [store.outputs(record).get("router_weights") for record in records]
    weights = [w for w in kept if w is not None]
    if not weights:
        return []
    if len(weights) < len(records):
        raise ResultsError(f"some runs of {records[0].dataset} {records[0].row} were stored without router weights")
    cell = per_user(store, records)
    sizes = store.histories(records[0])
    mean = np.mean(weights, axis=0)[cell.users]
    apart = np.mean([0.5 * np.abs(w - w.mean(axis=0)).sum(axis=1) for w in weights], axis=0)[cell.users]
    views = records[0].spec.model.views
    edges = np.quantile(sizes, np.linspace(0, 1, GROUPS + 1)[1:-1])
    group = np.searchsorted(edges, sizes, side="left")
    found = []
    for number in range(GROUPS):
        mine = group == number
        if not mine.any():  # many users with equally long histories
            continue
        found.append(
            RouterGroup(
                dataset=records[0].dataset,
                row=records[0].row,
                protocol=records[0].protocol,
                seeds=tuple(record.seed for record in records),
                least=int(sizes[mine].min()),
                most=int(sizes[mine].max()),
                users=int(mine.sum()),
                weights=dict(zip(views, mean[mine].mean(axis=0).tolist(), strict=True)),
                spread=dict(zip(views, mean[mine].std(axis=0).tolist(), strict=True)),
                heterogeneity=float(apart[mine].mean()),
                hr=float(cell.values["hr@50"][mine].mean()),
                ndcg=float(cell.values["ndcg@50"][mine].mean()),
            )
        )
    return found


def table_groups(store: ResultsStore, table: Table) -> list[RouterGroup]:
    """The groups of every cell of a table that has routers."""
    return [group for cell in table.cells.values() for group in router_groups(store, cell.records)]


def router_grid(groups: Sequence[RouterGroup]) -> Grid:
    """One line per group."""
    views = list(dict.fromkeys(view for group in groups for view in group.weights))
    lines = tuple(
        (
            g.dataset,
            g.row,
            span(g.least, g.most),
            g.users,
            *(f"{g.weights[v]:.3f} ± {g.spread[v]:.3f}" if v in g.weights else None for v in views),
            f"{g.heterogeneity:.3f}",
            g.hr,
            g.ndcg,
        )
        for g in groups
    )
    headings = (
        "data set",
        "row",
        "training items",
        "users",
        *(f"w({v})" for v in views),
        "heterogeneity",
        "HR@50",
        "NDCG@50",
    )
    note = (
        "Router weights: mean ± standard deviation over the users of a group. Heterogeneity: mean total variation "
        "between a user's weights and the mean of all users. HR@50 and NDCG@50 on test, percent. In the pictures the "
        "standard deviations are cut off at 0 and 1, between which weights lie."
    )
    return Grid(headings, lines, (note,))


def span(low: int, high: int) -> str:
    """`3 to 5`, or one number."""
    return str(low) if low == high else f"{low} to {high}"
