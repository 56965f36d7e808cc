"""Table 4 drawn: beside the paper's figures, with an epsilon column, and as a curve of utility over epsilon.

Files: `tables/table4-*` (all lines), `tables/table4-paper-*` (the paper's ten lines beside ours), both in the forms of
`grids`; `figures/privacy-curve-*` (numbers, and a picture per data set and metric). Imports `table4`, `products`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.benchmark.grids import print_grid, write_grid
from fedvlr_plugin.benchmark.layouts import HEADINGS
from fedvlr_plugin.benchmark.paper import METRICS, Metric, display_name
from fedvlr_plugin.benchmark.plots import new_picture, save_picture
from fedvlr_plugin.benchmark.products import Finished, Product
from fedvlr_plugin.benchmark.rows import FLOORS, parse_row
from fedvlr_plugin.benchmark.table import Figure
from fedvlr_plugin.benchmark.table4 import PAPER_DATASET, Level, Line, levels, noisy_runs, table4_lines
from fedvlr_plugin.benchmark.table4_grids import asked_for, curve_grid, is_accounted, noise_grid, paper_grid
from fedvlr_plugin.benchmark.table4_options import NoiseOptions
from fedvlr_plugin.benchmark.verdict import ID_ONLY
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError, MissingExtraError
from fedvlr_plugin.privacy.promise import promise

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def table4(options: NoiseOptions) -> Product:
    """The product, for the runners."""
    wanted = levels(options)

    def more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData]) -> list[RunSpec]:
        runs = noisy_runs(specs, wanted)
        for spec in runs:  # an epsilon out of reach, or a missing package, is told before any work
            promise(spec, data[spec.dataset].interactions.n_users)
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
    lines = table4_lines(done.store, done.specs, wanted, done.fingerprints)
    tables, figures = done.store.root / "tables", done.store.root / "figures"
    grid = noise_grid(lines)
    print_grid(grid, done.console)
    paths = write_grid(grid, tables / f"table4-{done.suffix}")
    if any(line.dataset == PAPER_DATASET and line.level.name == "paper" for line in lines):
        beside = paper_grid(lines)
        print_grid(beside, done.console)
        paths += write_grid(beside, tables / f"table4-paper-{done.suffix}")
    if any(is_accounted(line) for line in lines):
        stem = figures / f"privacy-curve-{done.suffix}"
        paths += write_grid(curve_grid(lines), stem)
        paths += _pictures(done, lines, stem)
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{tables}' and '{figures}'.")


def _pictures(done: Finished, lines: Sequence[Line], stem: Path) -> list[Path]:
    paths: list[Path] = []
    try:
        for dataset in done.datasets:
            mine = [line for line in lines if line.dataset == dataset]
            if any(is_accounted(line) for line in mine):
                for metric in METRICS:
                    name = f"{stem.name}-{dataset}-{metric.partition('@')[0]}"
                    paths += save_picture(curve(mine, metric, display_name(dataset)), stem.with_name(name))
    except MissingExtraError as error:
        done.say(f"No picture: {error}")
    return paths


def curve(lines: Sequence[Line], metric: Metric, title: str) -> Picture:
    """Utility over epsilon, one line per row with its 95 % intervals; floors as dashed levels."""
    picture, axes = new_picture(7.0, 4.0)
    levels = sorted({asked_for(line) for line in lines if is_accounted(line)})
    places = {epsilon: place for place, epsilon in enumerate([*levels, math.inf])}
    curves: dict[str, list[tuple[int, Figure]]] = {}
    for line in lines:
        figure = line.figure(metric)
        if figure is None or line.level.name == "paper":
            continue
        if line.row in FLOORS:
            axes.axhline(figure.mean, linestyle="--", linewidth=0.8, color="grey")
            axes.annotate(line.row, (0, figure.mean), fontsize=6, color="grey", va="bottom")
        else:
            curves.setdefault(line.row, []).append((places[asked_for(line)], figure))
    for number, (row, points) in enumerate(curves.items()):
        points.sort(key=lambda point: point[0])
        x = [place + 0.03 * (number - len(curves) / 2) for place, _ in points]
        y = [figure.mean for _, figure in points]
        whiskers = [[f.mean - f.interval.low for _, f in points], [f.interval.high - f.mean for _, f in points]]
        axes.errorbar(x, y, yerr=whiskers, label=row, marker="o", markersize=3, linewidth=1.2, elinewidth=0.6)
    axes.set_xticks(range(len(places)), [*(f"{epsilon:g}" for epsilon in levels), "∞ (no noise)"])
    axes.set_xlabel("ε of the whole run (add or remove one user)")
    axes.set_ylabel(f"{HEADINGS[metric]}, %")
    axes.set_title(title)
    picture.legend(loc="outside right upper", fontsize=7)
    return picture
