"""The output Table 2: the table itself, what it says of the paper's claims, and accuracy against bytes sent."""

from __future__ import annotations

from dataclasses import replace

from fedvlr_plugin.experiment.rows import known_rows
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.reporting.captions import warned
from fedvlr_plugin.reporting.claims import claims_grid, findings
from fedvlr_plugin.reporting.cost_accuracy import cost_accuracy_grid, cost_accuracy_picture, cost_points, levels
from fedvlr_plugin.reporting.drawing import draw, stamped
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN
from fedvlr_plugin.reporting.results_table import Table, build_table, left_out
from fedvlr_plugin.reporting.table2.formats import csv_text, latex, markdown, print_table
from fedvlr_plugin.reporting.table_formats import write_grid
from fedvlr_plugin.reporting.table_image import table_picture


def table_of(finished: FinishedRuns) -> Table:
    """Return the table of the runs."""
    return build_table(
        finished.store, finished.specs, finished.fingerprints, finished.profile, finished.rows, finished.datasets
    )


def annotated(finished: FinishedRuns, table: Table, grid: Grid) -> Grid:
    """Return a grid made from a table, with notes about features of random weights and runs that were left out."""
    grid = warned(grid, finished.records())
    return replace(grid, notes=(*grid.notes, *left_out(table.other_versions)))


def _finish(finished: FinishedRuns) -> None:
    table = table_of(finished)
    print_table(table, finished.console)
    stem = finished.store.tables / f"table2-{finished.suffix}"
    for suffix, text in ((".md", markdown(table)), (".csv", csv_text(table)), (".tex", latex(table))):
        write_atomic(stem.with_suffix(suffix), text.encode())
    pictures = draw(finished, lambda: table_picture(table), stem)
    suffixes = ", ".join(f"'{suffix}'" for suffix in (".csv", ".tex", *(path.suffix for path in pictures)))
    finished.say(f"Written: '{stem}.md', {suffixes}.")
    found = findings(finished.store, table)
    if found:
        grid = annotated(finished, table, claims_grid(found))
        paths = write_grid(grid, stem.with_name(f"claims-{finished.suffix}"))
        finished.say(f"What the runs say of the paper's claims: '{paths[0]}'.")
    _cost_accuracy(finished, table)


def _cost_accuracy(finished: FinishedRuns, table: Table) -> None:
    """Draw bytes sent per client against NDCG@50; nothing where no federated row was run."""
    points = cost_points(table)
    if not points:
        return
    stem = finished.store.figures / f"cost-accuracy-{finished.suffix}"
    paths = write_grid(annotated(finished, table, cost_accuracy_grid(points)), stem)
    paths += draw(finished, lambda: stamped(finished, cost_accuracy_picture(points, levels(table))), stem)
    finished.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


TABLE2 = RunsOutput(BUILT_IN["table2"].title, known_rows, _finish, references=True, controls=True)
