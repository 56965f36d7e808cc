"""A figure: the round that validation selected, by row and data set, as numbers and as a picture."""

from __future__ import annotations

import math

from fedvlr_plugin.experiment.rows import federated_rows
from fedvlr_plugin.reporting.drawing import draw, stamped
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.plots import bars
from fedvlr_plugin.reporting.table_formats import print_grid, write_grid


def _finish(finished: FinishedRuns) -> None:
    rounds: dict[tuple[str, str], list[int]] = {}
    for record in finished.records():
        rounds.setdefault((record.dataset, record.row), []).append(record.best_round)
    means = {cell: sum(values) / len(values) for cell, values in rounds.items()}
    lines = [(dataset, row, f"{mean:.1f}") for (dataset, row), mean in sorted(means.items())]
    grid = Grid(("data set", "row", "best round"), tuple(lines))
    print_grid(grid, finished.console)
    stem = finished.store.figures / f"best-rounds-{finished.suffix}"
    paths = write_grid(grid, stem)
    series = {
        dataset: [3 * (means.get((dataset, row), math.nan),) for row in finished.rows] for dataset in finished.datasets
    }
    paths += draw(finished, lambda: stamped(finished, bars(finished.rows, series, "selected round")), stem)
    finished.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


BEST_ROUNDS = RunsOutput("Best rounds", federated_rows, _finish)
