"""What the report shows of noise: the table with epsilon, the curves, and the runs behind them. Imports `table4`."""

from __future__ import annotations

from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.plots import inline_svg
from fedvlr_plugin.benchmark.table import Cell
from fedvlr_plugin.benchmark.table4_curve import curve
from fedvlr_plugin.benchmark.table4_grids import is_accounted, noise_grid
from fedvlr_plugin.benchmark.table4_stored import stored_lines
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, display_name


def noise_section(store: ResultsStore, profile: str, protocol: str, prefix: str) -> tuple[Grid, str, list[Cell]] | None:
    """The grid, the curves as SVG elements, and the noisy cells; None where no noisy run is stored."""
    lines = stored_lines(store, profile, protocol)
    if not lines:
        return None
    pictures = ""
    for dataset in dict.fromkeys(line.dataset for line in lines if is_accounted(line)):
        mine = [line for line in lines if line.dataset == dataset]
        for metric in METRICS:
            label = f"{prefix}-{dataset}-{metric.partition('@')[0]}"
            pictures += inline_svg(curve(mine, metric, display_name(dataset)), label)
    cells = [line.cell for line in lines if line.cell is not None and line.level.privacy is not None]
    return noise_grid(lines), pictures, cells
