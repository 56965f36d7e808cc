"""What was spent on a searched table: how each cell was searched, with how many trials, seeds and rounds.

Read from the stored selections; rows that were treated alike share a line. Imports `rebuild`, `selection`, `grids`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.rebuild import best_searches, in_order
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.search.selection import SelectedConfiguration, all_tuned

Treatment = tuple[str, str, int, int, str, str, str]


def budget_grid(tuned: Sequence[SelectedConfiguration]) -> Grid:
    """One line per data set and treatment. `early stop`: after so many rounds without gain, a dash where never."""
    groups: dict[Treatment, set[str]] = {}
    for each in tuned:
        groups.setdefault(_treatment(each), set()).add(each.base.row)
    order = in_order({each.base.row for each in tuned})
    by_row = [(treatment, [row for row in order if row in rows]) for treatment, rows in groups.items()]
    by_row.sort(key=lambda group: (group[0][0], order.index(group[1][0])))
    lines = tuple((treatment[0], ", ".join(rows), *treatment[1:]) for treatment, rows in by_row)
    headings = ("data set", "rows", "search", "trials", "seeds", "rounds or epochs", "early stop", "share of clients")
    note = "Trials of a cell, by validation NDCG@50; then the chosen point with so many seeds. Share of clients: in each round."
    return Grid(headings, lines, (note,))


def stored_budget(store: ResultsStore, profile: str, protocol: str, datasets: Sequence[str] | None = None) -> Grid:
    """The budget of the searches that the stored table of a profile and protocol shows."""
    tuned = best_searches(store, all_tuned(store.root, profile, protocol))
    return budget_grid([each for each in tuned if datasets is None or each.base.dataset in datasets])


def _treatment(tuned: SelectedConfiguration) -> Treatment:
    training = tuned.base.training
    stops = training.patience is not None and training.patience < training.rounds
    federated = parse_row(tuned.base.row).kind == "federated"
    return (
        display_name(tuned.base.dataset),
        tuned.method,
        tuned.tried + tuned.failed + tuned.pruned,
        tuned.seeds,
        str(training.rounds),
        str(training.patience) if stops else "–",
        f"{training.participation:g}" if federated else "",
    )
