"""The output Table 4: tables and curves of what noise costs, in files of their own for each data set.

`tables/table4-*` holds all lines, for KU `tables/table4-*-paper` the paper's ten lines beside ours, each in every format
and as a picture; `figures/privacy-curve-*` the numbers of the curves, and a picture per metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.rows import REFERENCES, parse_row
from fedvlr_plugin.experiment.variants import levels, noisy_runs
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name
from fedvlr_plugin.privacy.guarantee import guarantee_of
from fedvlr_plugin.reporting.captions import warned
from fedvlr_plugin.reporting.drawing import draw, stamped
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN
from fedvlr_plugin.reporting.table4.grids import curve, curve_grid, is_accounted, noise_grid, paper_grid
from fedvlr_plugin.reporting.table4.lines import PAPER_DATASET, Line, table4_lines
from fedvlr_plugin.reporting.table_formats import print_grid, write_grid
from fedvlr_plugin.reporting.table_image import grid_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def _rows() -> list[str]:
    return [
        *REFERENCES,
        *(row for name in BACKBONES.names() if BACKBONES.get(name).id_only for row in (name, f"{name}+ours")),
    ]


def _check(rows: Sequence[str]) -> None:
    for row in rows:
        if parse_row(row).kind == "recbole":
            raise ConfigError(
                f"row '{row}' cannot be drawn here: it is centralized, so nothing is sent that noise goes on"
            )


def _more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData], noise: NoiseOptions) -> list[RunSpec]:
    runs = noisy_runs(specs, levels(noise))
    for spec in runs:  # an epsilon out of reach, or a missing package, is told before any work
        guarantee_of(spec, data[spec.dataset].interactions.n_users)
    return runs


def _finish(finished: FinishedRuns) -> None:
    tables, figures = finished.store.tables, finished.store.figures
    paths: list[Path] = []
    all_lines = table4_lines(finished.store, finished.specs, levels(finished.noise), finished.fingerprints)
    for dataset in finished.datasets:
        lines = [line for line in all_lines if line.dataset == dataset]
        records = [record for record in finished.records() if record.dataset == dataset]
        grid = warned(noise_grid(lines), records)
        print_grid(grid, finished.console)
        paths += _write(finished, grid, tables / f"table4-{finished.suffix}-{dataset}")
        if dataset == PAPER_DATASET and any(line.level.name == "paper" for line in lines):
            beside_paper = warned(paper_grid(lines), records)
            print_grid(beside_paper, finished.console)
            paths += _write(finished, beside_paper, tables / f"table4-{finished.suffix}-{dataset}-paper")
        if any(is_accounted(line) for line in lines):
            stem = figures / f"privacy-curve-{finished.suffix}-{dataset}"
            paths += write_grid(warned(curve_grid(lines), records), stem)
            paths += _curves(finished, lines, stem, display_name(dataset))
    finished.say(f"Written: {', '.join(path.name for path in paths)} in '{tables}' and '{figures}'.")


def _write(finished: FinishedRuns, grid: Grid, stem: Path) -> list[Path]:
    """Write a table in every format and as a picture."""
    return [*write_grid(grid, stem), *draw(finished, lambda: grid_picture(grid), stem)]


def _curves(finished: FinishedRuns, lines: Sequence[Line], stem: Path, title: str) -> list[Path]:
    paths: list[Path] = []
    for metric in METRICS:
        name = f"{stem.name}-{metric.partition('@')[0]}"
        paths += draw(finished, partial(_stamped_curve, finished, lines, metric, title), stem.with_name(name))
    return paths


def _stamped_curve(finished: FinishedRuns, lines: Sequence[Line], metric: Metric, title: str) -> Picture:
    return stamped(finished, curve(lines, metric, title))


TABLE4 = RunsOutput(
    BUILT_IN["table4"].title, _rows, _finish, _check, _more, datasets=("ku", "ml"), with_noise=True, references=True
)
