"""Figure 2: what the routers learned, by user activity: weight of each view, spread between users, accuracy.

Users are put into four groups by the number of their training items. Heterogeneity of a group is the mean over its users of
the distance (total variation, 0..1) of their weights from the mean weights of all users. Everything is read from the store
(router weights, ranks, history sizes), and averaged over seeds.

The picture of one row on one data set shows bars of router weights. A weight lies between 0 and 1, a standard deviation
around its mean need not: the whiskers are cut off there, and the picture says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import federated_rows, parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.comparisons import per_user
from fedvlr_plugin.reporting.drawing import draw, refuse_other_rows, stamped
from fedvlr_plugin.reporting.grid import Grid, format_mean_sd
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN
from fedvlr_plugin.reporting.plots import Bar, bars
from fedvlr_plugin.reporting.results_table import Table
from fedvlr_plugin.reporting.table2.output import annotated, table_of
from fedvlr_plugin.reporting.table_formats import print_grid, write_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

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
            *(format_mean_sd(g.weights[v], g.spread[v], digits=3) if v in g.weights else None for v in views),
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


CAPTION = (
    "Bars: mean over the users of a group and over seeds. Whiskers: one standard deviation over these users, "
    "cut off at 0 and 1, between which weights lie."
)
LEAST_WIDTH = 7.0  # inches: room for the title beside the legend
LETTERS_PER_INCH = {10: 11, 7: 16}  # of an average line, by size of type


def router_picture(groups: Sequence[RouterGroup]) -> Picture:
    """The groups of one row on one data set; raises `MissingExtraError` without matplotlib."""
    names = [f"{span(group.least, group.most)}\n{group.users} users" for group in groups]
    picture = bars(names, weight_bars(groups), "mean router weight")
    (axes,) = picture.axes
    width = max(picture.get_figwidth(), LEAST_WIDTH)
    picture.set_figwidth(width)
    axes.set_title(_wrapped(title(groups[0]), width, 10), fontsize=10)
    axes.set_xlabel("training items of a user")
    axes.set_ylim(0.0, 1.0)
    picture.legends[0].set_title("view")
    picture.legends[0].get_title().set_fontsize(7)
    picture.supxlabel(_wrapped(CAPTION, width, 7), fontsize=7, color="0.3")
    return picture


def title(group: RouterGroup) -> str:
    """Data set, row, protocol and seeds."""
    number = "seed" if len(group.seeds) == 1 else "seeds"
    return (
        f"Router weights: {display_name(group.dataset)}, {group.row}, protocol {group.protocol}, "
        f"{number} {format_seeds(group.seeds)}"
    )


def weight_bars(groups: Sequence[RouterGroup]) -> dict[str, list[Bar]]:
    """View -> per group the mean weight, and one standard deviation below and above it as far as weights can lie."""
    return {
        view: [
            (g.weights[view], max(0.0, g.weights[view] - g.spread[view]), min(1.0, g.weights[view] + g.spread[view]))
            for g in groups
        ]
        for view in groups[0].weights
    }


def format_seeds(seeds: Sequence[int]) -> str:
    """`0 to 4`, or `0, 2, 5` where some between are missing."""
    low, high = min(seeds), max(seeds)
    return span(low, high) if len(set(seeds)) == high - low + 1 else ", ".join(map(str, sorted(seeds)))


def _wrapped(text: str, width: float, size: int) -> str:
    return textwrap.fill(text, int(width * LETTERS_PER_INCH[size]))


def rows_with_routers() -> list[str]:
    """Return the federated rows whose clients have a router."""
    return [row for row in federated_rows() if parse_row(row).fusion == "blfm"]


def _check(rows: Sequence[str]) -> None:
    refuse_other_rows(rows, [row for row in rows if parse_row(row).fusion == "blfm"], "have routers; use +ours rows")


def _finish(finished: FinishedRuns) -> None:
    table = table_of(finished)
    groups = table_groups(finished.store, table)
    stem = finished.store.figures / f"figure2-{finished.suffix}"
    grid = annotated(finished, table, router_grid(groups))
    print_grid(grid, finished.console)
    paths = write_grid(grid, stem)
    for dataset, row in dict.fromkeys((group.dataset, group.row) for group in groups):
        of_cell = [group for group in groups if (group.dataset, group.row) == (dataset, row)]
        make_picture = partial(_stamped_picture, finished, of_cell)
        paths += draw(finished, make_picture, stem.with_name(f"{stem.name}-{dataset}-{row}"))
    finished.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _stamped_picture(finished: FinishedRuns, groups: Sequence[RouterGroup]) -> Picture:
    return stamped(finished, router_picture(groups))


FIGURE2 = RunsOutput(BUILT_IN["figure2"].title, rows_with_routers, _finish, _check, keep=("router_weights",))
