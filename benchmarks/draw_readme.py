#!/usr/bin/env python
"""Draw the README's two pictures: the method, and the main result on KU from the results store.

    python benchmarks/draw_readme.py [--results results/published] [--output results/figures]

Needs the extra [report] (matplotlib). The same store gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.plots import empty_picture
from fedvlr_plugin.reporting.results_table import Table, build_table
from fedvlr_plugin.reporting.stored_runs import stored_specs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

INK, SERVER, CLIENT, PRIVATE, SENT = "#22303c", "#e8f0f8", "#eef6ea", "#fff3d6", "#2f6db3"
BACKBONES = ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP")
FUSIONS = {"": ("vanilla", "#7a8793"), "+MLP": ("+MLP", "#e0902f"), "+ours": ("+ours", "#2f6db3")}
LEVELS = {"popularity": (":", "#8a8a8a"), "cold-first": ("--", "#8a8a8a"), "VBPR": ("-", "#4f8f4f")}
NAMES = {"VBPR": "VBPR (centralized)"}


def method_picture() -> Picture:
    """Draw one round: what the server broadcasts, what a client keeps, what it uploads."""
    picture = empty_picture(10.0, 5.0)
    axes = picture.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 50)
    axes.axis("off")

    _box(axes, (1, 1.5), (39, 47), SERVER)
    _text(axes, 20.5, 46, "server", bold=True, size=13)
    for x, title, detail in ((7.6, "image features", "frozen, [n, m]"), (20.5, "text features", "frozen, [n, m]"),
                             (33.4, "ID table", "trained, [n, d]")):  # fmt: skip
        _box(axes, (x - 6.1, 36.2), (12.2, 6.2), "white", title, detail)
        _arrow(axes, (x, 36.0), (x, 33.6))
    _box(axes, (3, 28.4), (35, 5), "white", "projection to width d, LayerNorm")
    for x, title, detail in ((8.3, "sum", "v + c + x"), (20.5, "MLP", "of [v; c; x]"), (32.7, "gate", "gated sum")):
        _arrow(axes, (x, 28.2), (x, 25.6))
        _box(axes, (x - 5.3, 19.4), (10.6, 6), "white", title, detail)
    _text(axes, 20.5, 17.3, "three views of every item: F [3, n, d]", size=9.5)
    _box(axes, (3, 4), (35, 8.2), "white")
    _text(axes, 20.5, 9.9, "one optimizer step a round", bold=True)
    _text(axes, 20.5, 7.8, "weighted sum of the uploads, pulled back through the", size=8.8)
    _text(axes, 20.5, 5.8, "fusion once, to the ID table and the fusion weights", size=8.8)
    _arrow(axes, (20.5, 12.4), (20.5, 15.6), style="--")

    for shift in (1.6, 0.8):
        _box(axes, (58 + shift, 1.5 + shift), (38.8, 44.6), "white")
    _box(axes, (58, 1.5), (38.8, 44.6), CLIENT)
    _text(axes, 77.4, 43.6, "client = one user (many of them)", bold=True, size=12)
    _box(axes, (60, 31.2), (11.3, 9), PRIVATE, "history", "items of\nthis user")
    _box(axes, (73.6, 31.2), (21.4, 9), PRIVATE, "router", "mean of each view over the\nhistory gives weights w")
    _arrow(axes, (71.5, 35.7), (73.4, 35.7))
    _box(axes, (60, 20), (35, 7.2), "white", "personal item vectors", "weighted sum of the three views, with weights w")
    _arrow(axes, (84.3, 31.0), (84.3, 27.4))
    _box(
        axes,
        (60, 4),
        (17, 11.8),
        "white",
        "local training",
        "score, loss, a few\nepochs; the gradients\nof F are added up",
    )
    _box(axes, (79.8, 4), (15.2, 11.8), PRIVATE, "head", "and private item\nvectors, as the\nbackbone has them")
    _arrow(axes, (68.5, 19.8), (68.5, 16.0))
    _arrow(axes, (79.6, 9.9), (77.2, 9.9), both=True)

    _arrow(axes, (38.2, 22.4), (59.8, 22.4), colour=SENT, width=2.2)
    _text(axes, 48.5, 26.3, "broadcast", bold=True, colour=SENT)
    _text(axes, 48.5, 24.1, "views F", colour=SENT, size=9.5)
    _arrow(axes, (59.8, 8.1), (38.4, 8.1), colour=SENT, width=2.2)
    _text(axes, 48.5, 12.0, "upload", bold=True, colour=SENT)
    _text(axes, 48.5, 9.8, "gradient of F, weight", colour=SENT, size=9.5)
    _box(axes, (41.4, 36.0), (2.8, 2.4), PRIVATE)
    _text(axes, 45.0, 38.3, "private: never", size=9, align="left")
    _text(axes, 45.0, 36.1, "leaves the client", size=9, align="left")
    return picture


def _box(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str, title: str = "", detail: str = ""
) -> None:
    """Draw a rounded box; the title is bold, the detail below it may have several lines."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.9"
    axes.add_patch(FancyBboxPatch(corner, *size, style, facecolor=colour, edgecolor=INK, linewidth=1.0))
    middle, centre = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    lines = detail.splitlines()
    top = centre + 1.05 * len(lines)
    if title:
        _text(axes, middle, top, title, size=9.5, bold=True)
    for number, line in enumerate(lines):
        _text(axes, middle, top - 2.3 - 2.05 * number, line, size=8.8)


def _text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    size: float = 10,
    bold: bool = False,
    colour: str = INK,
    align: str = "center",
) -> None:
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, ha=align, va="center", fontsize=size, fontweight=weight, color=colour)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = INK,
    width: float = 1.2,
    style: str = "-",
    both: bool = False,
) -> None:
    head = "<->" if both else "-|>"
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": head, "color": colour, "linewidth": width, "linestyle": style}
    )


def result_picture(table: Table, dataset: str) -> Picture:
    """Draw every backbone with its fusions, 95 % intervals over users, the paper's figures and the levels to beat."""
    picture = empty_picture(10.0, 4.2)
    picture.set_layout_engine("constrained")
    for panel, metric in zip(picture.subplots(1, len(METRICS)), METRICS, strict=True):
        for name, (style, colour) in LEVELS.items():
            level = table.figure(name, dataset, metric)
            if level is not None:
                panel.axhline(
                    level.mean, linestyle=style, color=colour, linewidth=1.2, label=NAMES.get(name, name), zorder=1
                )
        for shift, (fusion, (label, colour)) in zip((-0.24, 0.0, 0.24), FUSIONS.items(), strict=True):
            for place, backbone in enumerate(BACKBONES):
                figure = table.figure(backbone + fusion, dataset, metric)
                if figure is None:
                    continue
                whiskers = [[figure.mean - figure.interval.low], [figure.interval.high - figure.mean]]
                named = {"label": label} if place == 0 else {}
                panel.errorbar(
                    place + shift, figure.mean, whiskers, fmt="o", color=colour, capsize=2.5, markersize=6, **named
                )
                if figure.paper is not None:
                    ours = {"label": "the paper's figure"} if fusion == "+ours" and place == 0 else {}
                    panel.plot(
                        place + shift, figure.paper, "x", color=colour, markersize=7, markeredgewidth=1.8, **ours
                    )
        panel.set_xticks(range(len(BACKBONES)), BACKBONES)
        panel.set_ylabel(f"{metric.upper()} on KU, %")
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9, frameon=False)
    return picture


def main(arguments: list[str]) -> int:
    """Write `method.png` and `main-result.png`; return 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=Path("results/published"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results/figures"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        store = ResultsStore(options.results)
        specs = [spec for spec in stored_specs(store, "paper", "corrected") if spec.dataset == "ku"]
        _write(method_picture(), options.output / "method.png")
        _write(result_picture(build_table(store, specs), "ku"), options.output / "main-result.png")
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write(picture: Picture, path: Path) -> None:
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
