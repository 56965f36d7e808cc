"""Figure 2 of one row on one data set: bars of router weights by user activity, with what was run written on it.

A weight lies between 0 and 1, a standard deviation around its mean need not: the whiskers are cut off there, and the
picture says so. Imports `router_figure`, `plots`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.plots import Bar, bars
from fedvlr_plugin.benchmark.router_figure import RouterGroup, span
from fedvlr_plugin.paper.tables import display_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

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
        f"{number} {spelled(group.seeds)}"
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


def spelled(seeds: Sequence[int]) -> str:
    """`0 to 4`, or `0, 2, 5` where some between are missing."""
    low, high = min(seeds), max(seeds)
    return span(low, high) if len(set(seeds)) == high - low + 1 else ", ".join(map(str, sorted(seeds)))


def _wrapped(text: str, width: float, size: int) -> str:
    return textwrap.fill(text, int(width * LETTERS_PER_INCH[size]))
