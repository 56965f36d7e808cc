"""Which runs make up a table, found out from the results folder alone (no data, no study database).

A profile that searched left its selections; for another one the present settings of the profile say which stored runs belong
to it. Where a cell was searched more than once the best by validation counts: a table never mixes two.

The budget of a searched table says how each cell was searched, with how many trials, seeds and rounds; rows that were treated
alike share a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.experiment.controls import controls_of
from fedvlr_plugin.experiment.profiles import get_profile, specs_for
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import CLOSED_FORMS, known_rows, parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Table, build_table
from fedvlr_plugin.search.selection import SelectedConfiguration, all_tuned


def stored_profiles(store: ResultsStore) -> list[tuple[str, str]]:
    """The pairs (profile, protocol) that trained runs were stored under, sorted."""
    return sorted(
        {(r.profile, r.protocol) for r in store.records() if r.profile is not None and r.row not in CLOSED_FORMS}
    )


def stored_specs(
    store: ResultsStore,
    profile: str,
    protocol: str,
    settings: Mapping[str, object] | None = None,
    searched: bool = True,
) -> list[RunSpec]:
    """Return the specifications of a profile's table, for the data sets and rows that are in the store.

    Floors come first, shuffled controls last, where they are stored.

    Args:
        store: where the runs are.
        profile: name of the profile.
        protocol: name of the evaluation protocol.
        settings: those the runs were started with (`--set`), if any.
        searched: whether the selections of searches count; False = the settings of the profile.
    """
    everything = store.records()
    records = [r for r in everything if r.protocol == protocol and r.profile in (profile, None)]
    tuned = best_searches(store, all_tuned(store, profile, protocol)) if searched else []
    datasets = sorted({r.dataset for r in records} | {t.base.dataset for t in tuned})
    floors = [row for row in CLOSED_FORMS if any(r.row == row for r in everything)]
    if tuned:
        chosen = [spec for each in tuned for spec in each.specs()]
        found = [*specs_for(get_profile(profile), datasets, floors, 1, protocol), *chosen]
        return [*found, *_stored_controls(found, everything)]
    rows = in_order({r.row for r in records} - set(CLOSED_FORMS))
    seeds = max((r.spec.seed for r in records), default=0) + 1
    found = specs_for(get_profile(profile), datasets, [*floors, *rows], seeds, protocol, settings)
    return [*found, *_stored_controls(found, everything)]


def _stored_controls(specs: Sequence[RunSpec], records: Sequence[RunRecord]) -> list[RunSpec]:
    """Controls of the runs that are stored."""
    there = {record.spec_hash for record in records}
    return [control for control in controls_of(specs) if control.spec_hash in there]


def stored_table(
    store: ResultsStore, profile: str, protocol: str, settings: Mapping[str, object] | None = None
) -> Table:
    """The table of a profile as far as it is stored."""
    specs = stored_specs(store, profile, protocol, settings)
    rows = in_order({spec.row for spec in specs})
    return build_table(store, specs, None, profile, rows, sorted({spec.dataset for spec in specs}))


def best_searches(store: ResultsStore, tuned: Sequence[SelectedConfiguration]) -> list[SelectedConfiguration]:
    """One selection for each cell (row, data set, conditions), in the order of first appearance.

    Of several searches the one whose chosen point has the best validation NDCG@50, as of several trials of one search;
    of equals the larger. One whose final runs are not all stored yet does not take the place of one that is finished.
    """

    def merit(each: SelectedConfiguration) -> tuple[bool, float, int, int]:
        finished = all(store.has(spec, each.data_fingerprint) for spec in each.specs())
        return finished, each.value, each.tried + each.failed + each.pruned, each.base.training.rounds

    cells: dict[tuple[str, str, str], list[SelectedConfiguration]] = {}
    for each in tuned:
        cell = (each.base.dataset, each.base.row, each.base.conditions.model_dump_json())
        cells.setdefault(cell, []).append(each)
    return [max(searches, key=merit) for searches in cells.values()]


def in_order(rows: set[str]) -> list[str]:
    """In the order of the paper's table, rows that it does not have last."""
    known = known_rows()
    return [row for row in known if row in rows] + sorted(rows - set(known))


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
    tuned = best_searches(store, all_tuned(store, profile, protocol))
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
