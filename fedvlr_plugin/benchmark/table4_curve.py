"""The picture of utility over epsilon. Imports `table4`, `plots`; matplotlib (the extra [report]) when it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.layouts import HEADINGS
from fedvlr_plugin.benchmark.plots import name_levels, new_picture
from fedvlr_plugin.benchmark.table import Figure
from fedvlr_plugin.benchmark.table4 import Line
from fedvlr_plugin.benchmark.table4_grids import asked_for, is_accounted
from fedvlr_plugin.experiment.rows import FLOORS
from fedvlr_plugin.paper.tables import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def curve(lines: Sequence[Line], metric: Metric, title: str) -> Picture:
    """Utility over epsilon, one line per row with its 95 % intervals; floors as dashed levels."""
    picture, axes = new_picture(7.0, 4.0)
    levels = sorted({asked_for(line) for line in lines if is_accounted(line)})
    places = {epsilon: place for place, epsilon in enumerate([*levels, math.inf])}
    curves: dict[str, list[tuple[int, Figure]]] = {}
    floors: list[tuple[float, str]] = []
    for line in lines:
        figure = line.figure(metric)
        if figure is None or not (line.level.privacy is None or is_accounted(line)):
            continue
        if line.row in FLOORS:
            floors.append((figure.mean, line.row))
        else:
            curves.setdefault(line.row, []).append((places[asked_for(line)], figure))
    for level, _ in floors:
        axes.axhline(level, linestyle="--", linewidth=0.8, color="grey")
    for number, (row, points) in enumerate(curves.items()):
        points.sort(key=lambda point: point[0])
        x = [place + 0.03 * (number - len(curves) / 2) for place, _ in points]
        y = [figure.mean for _, figure in points]
        whiskers = [[f.mean - f.interval.low for _, f in points], [f.interval.high - f.mean for _, f in points]]
        axes.errorbar(x, y, yerr=whiskers, label=row, marker="o", markersize=3, linewidth=1.2, elinewidth=0.6)
    low, high = axes.get_ylim()
    axes.set_xlim(-0.6)
    name_levels(axes, floors, 0.035 * (high - low))
    axes.set_xticks(range(len(places)), [*(f"{epsilon:g}" for epsilon in levels), "∞ (no noise)"])
    axes.set_xlabel("ε of the whole run (add or remove one user)")
    axes.set_ylabel(f"{HEADINGS[metric]}, %")
    axes.set_title(title)
    picture.legend(loc="outside right upper", fontsize=7)
    return picture
