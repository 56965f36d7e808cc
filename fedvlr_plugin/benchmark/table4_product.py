"""Table 4 drawn: beside the paper's figures, with an epsilon column, and as a curve of utility over epsilon.

Files for each data set: `tables/table4-*` (all lines), for KU `tables/table4-*-paper` (the paper's ten lines beside
ours), in the forms of `grids` and as pictures; `figures/privacy-curve-*` (numbers, and a picture per metric). Imports `table4`,
`products`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.benchmark.feature_labels import warned
from fedvlr_plugin.benchmark.grids import Grid, print_grid, write_grid
from fedvlr_plugin.benchmark.products import Finished, Product, draw, records_of, stamped
from fedvlr_plugin.benchmark.table4 import PAPER_DATASET, Line, table4_lines
from fedvlr_plugin.benchmark.table4_curve import curve
from fedvlr_plugin.benchmark.table4_grids import curve_grid, is_accounted, noise_grid, paper_grid
from fedvlr_plugin.benchmark.table_picture import grid_picture
from fedvlr_plugin.benchmark.verdict import ID_ONLY
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.rows import FLOORS, parse_row
from fedvlr_plugin.experiment.variants import Level, levels, noisy_runs
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name
from fedvlr_plugin.privacy.guarantee import guarantee_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def table4(options: NoiseOptions) -> Product:
    """The product, for the runners."""
    wanted = levels(options)

    def more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData]) -> list[RunSpec]:
        runs = noisy_runs(specs, wanted)
        for spec in runs:  # an epsilon out of reach, or a missing package, is told before any work
            guarantee_of(spec, data[spec.dataset].interactions.n_users)
        return runs

    def finish(done: Finished) -> None:
        _finish(done, wanted)

    return Product(_rows, _check, more, finish, datasets=("ku", "ml"))


def _rows() -> list[str]:
    return [*FLOORS, *(row for name in BACKBONES.names() if name in ID_ONLY for row in (name, f"{name}+ours"))]


def _check(rows: Sequence[str]) -> None:
    for row in rows:
        if parse_row(row).kind == "recbole":
            raise ConfigError(
                f"row '{row}' cannot be drawn here: it is centralized, so nothing is sent that noise goes on"
            )


def _finish(done: Finished, wanted: Sequence[Level]) -> None:
    """Tables and curve of each data set, in files of their own, so that data sets can be computed one by one."""
    tables, figures = done.store.root / "tables", done.store.root / "figures"
    paths: list[Path] = []
    every = table4_lines(done.store, done.specs, wanted, done.fingerprints)
    for dataset in done.datasets:
        lines = [line for line in every if line.dataset == dataset]
        mine = [record for record in records_of(done) if record.dataset == dataset]
        grid = warned(noise_grid(lines), mine)
        print_grid(grid, done.console)
        paths += _write(done, grid, tables / f"table4-{done.suffix}-{dataset}")
        if dataset == PAPER_DATASET and any(line.level.name == "paper" for line in lines):
            beside = warned(paper_grid(lines), mine)
            print_grid(beside, done.console)
            paths += _write(done, beside, tables / f"table4-{done.suffix}-{dataset}-paper")
        if any(is_accounted(line) for line in lines):
            stem = figures / f"privacy-curve-{done.suffix}-{dataset}"
            paths += write_grid(warned(curve_grid(lines), mine), stem)
            paths += _pictures(done, lines, stem, display_name(dataset))
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{tables}' and '{figures}'.")


def _write(done: Finished, grid: Grid, stem: Path) -> list[Path]:
    """A table in all its forms, as a picture too."""
    return [*write_grid(grid, stem), *draw(done, lambda: grid_picture(grid), stem)]


def _pictures(done: Finished, lines: Sequence[Line], stem: Path, title: str) -> list[Path]:
    paths: list[Path] = []
    for metric in METRICS:
        name = f"{stem.name}-{metric.partition('@')[0]}"
        paths += draw(done, partial(_curve, done, lines, metric, title), stem.with_name(name))
    return paths


def _curve(done: Finished, lines: Sequence[Line], metric: Metric, title: str) -> Picture:
    return stamped(done, curve(lines, metric, title))
