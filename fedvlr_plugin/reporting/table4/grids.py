"""Table 4 as tables and curves: all lines with their epsilon, the paper's ten lines beside ours, and utility over epsilon.

`compact_grid` is Table 4 for a page of text: one line per data set and row, one column per amount of noise. `noise_section`
is what the HTML report shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fedvlr_plugin.experiment.rows import REFERENCES
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name
from fedvlr_plugin.privacy.guarantee import format_epsilon
from fedvlr_plugin.reporting.captions import noise_lines
from fedvlr_plugin.reporting.comparisons import shortage
from fedvlr_plugin.reporting.grid import Grid, Value, format_interval
from fedvlr_plugin.reporting.plots import inline_svg, name_levels, new_picture
from fedvlr_plugin.reporting.results_table import Cell, Figure
from fedvlr_plugin.reporting.table2_formats import HEADINGS, format_figure
from fedvlr_plugin.reporting.table4.lines import PAPER_DATASET, Line, published4, records_of, stored_lines
from fedvlr_plugin.reporting.verdict import judge_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

NOT_COVERED = (
    "Epsilon covers the shared model of a run. It does not cover the choice of hyper-parameters and of the best round "
    "by validation, side channels, or the accuracy of floating-point noise."
)


def noise_grid(lines: Sequence[Line]) -> Grid:
    """Every line, with epsilon and what the noise costs."""
    headings = ["data set", "row", "noise", "ε"]
    for metric in METRICS:
        headings += [HEADINGS[metric], f"95 %{' ' * METRICS.index(metric)}", f"degrade %{' ' * METRICS.index(metric)}"]
    body = []
    for line in lines:
        values: list[Value] = [display_name(line.dataset), line.row, line.level.name, epsilon_of_line(line)]
        for metric in METRICS:
            figure = line.figure(metric)
            mark = {True: " ▼", False: " ▲", None: ""}[line.worse[metric]]
            around = None if figure is None else format_interval(figure.interval.low, figure.interval.high)
            values += [None if figure is None else format_figure(figure) + mark, around, line.degrade[metric]]
        body.append(tuple(values))
    return Grid(tuple(headings), tuple(body), tuple(_full_notes(lines)))


def epsilon_of_line(line: Line) -> str | None:
    """What the stored runs promise; `∞` for a trained row without a promise, nothing for a floor."""
    if line.row in REFERENCES or line.cell is None:
        return None
    return " / ".join(dict.fromkeys(format_epsilon(record.privacy) for record in line.cell.records))


def paper_grid(lines: Sequence[Line]) -> Grid:
    """The paper's Table 4 beside ours, with the paper's kind of noise; a verdict on each of its figures."""
    mine = {(line.row, line.level.name): line for line in lines if line.dataset == PAPER_DATASET}
    body = []
    for theirs in published4():
        ours = [mine.get((theirs.row, name)) for name in ("none", "paper")]
        if ours[0] is None:
            continue
        values: list[Value] = [theirs.row, HEADINGS[theirs.metric]]
        for line, value in zip(ours, (theirs.without, theirs.noisy), strict=True):
            figure = None if line is None else line.figure(theirs.metric)
            cell = None if line is None else line.cell
            data = None if cell is None else cell.records[0].data
            around = None if figure is None else figure.method_interval or figure.interval
            lacking = "" if cell is None else shortage(cell.records)
            verdict = judge_value(
                value, theirs.row, theirs.metric, None if figure is None else figure.mean, around, data, lacking
            )
            values += [value, None if figure is None else format_figure(figure), str(verdict)]
        degrade = None if ours[1] is None else ours[1].degrade[theirs.metric]
        body.append((*values, theirs.degrade, degrade))
    headings = (
        "row", "metric", "paper w/ ours", "w/ ours", "verdict", "paper w/ noise", "w/ noise", "verdict ",
        "paper degrade %", "degrade %",
    )  # fmt: skip
    noise = noise_lines(records_of([line for line in lines if line.level.name == "paper"]))
    notes = ("The paper does not say how large its noise is, and the released code adds none.", *noise)
    return Grid(headings, tuple(body), notes)


def curve_grid(lines: Sequence[Line]) -> Grid:
    """Utility over epsilon as numbers; epsilon as asked for, `inf` without noise."""
    headings = ["data set", "row", "epsilon", "promised", "delta", "seeds"]
    for metric in METRICS:
        headings += [metric, f"{metric} low", f"{metric} high"]
    body = []
    for line in lines:
        if line.cell is None or line.row in REFERENCES or not (line.level.privacy is None or is_accounted(line)):
            continue
        promised = line.cell.records[0].privacy
        values: list[Value] = [line.dataset, line.row, f"{asked_for(line):g}"]
        values += [None, None] if promised is None else [promised.epsilon, f"{promised.delta or 0.0:.3g}"]
        values.append(len(line.cell.records))
        for metric in METRICS:
            figure = line.cell.figures[metric]
            values += [figure.mean, figure.interval.low, figure.interval.high]
        body.append(tuple(values))
    return Grid(tuple(headings), tuple(body), (NOT_COVERED,))


def _full_notes(lines: Sequence[Line]) -> list[str]:
    """What a reader must know, from the records."""
    records = records_of(lines)
    trained = [record for record in records if record.row not in REFERENCES]
    if not trained:
        return ["No runs are stored."]
    seeds = sorted({len(line.cell.records) for line in lines if line.cell is not None and line.row not in REFERENCES})
    missing = sum(line.cell is None for line in lines)
    notes = [
        "HR@50 and NDCG@50 on the test split in percent: mean ± standard deviation over seeds, and the 95 % bootstrap "
        "interval over users. degrade %: lost to the noise, of the figure without it. ▼ significantly worse, ▲ better "
        "than without noise (paired randomization test over users, so of these trained models; Holm over the data set's lines, 5 %).",
        f"Protocol {', '.join(sorted({r.protocol for r in trained}))}; seeds per line: "
        f"{' to '.join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))}; a noisy run has the settings of the run "
        "without noise, but under a stated ε all clients weigh the same. Runs of one seed share their noise.",
        *noise_lines(trained),
        NOT_COVERED,
    ]
    return notes + ([f"{missing} lines are not stored yet."] if missing else [])


def is_accounted(line: Line) -> bool:
    """Whether the line is stored and has an epsilon."""
    return line.cell is not None and line.level.privacy is not None and line.level.privacy.epsilon is not None


def asked_for(line: Line) -> float:
    """The epsilon that was asked for, infinite without noise."""
    privacy = line.level.privacy
    return math.inf if privacy is None or privacy.epsilon is None else privacy.epsilon


def compact_grid(lines: Sequence[Line]) -> Grid:
    """HR@50 / NDCG@50 of every line, rows by levels; ▼ where the noise makes HR@50 significantly worse."""
    trained = [line for line in lines if line.row not in REFERENCES]
    levels = list(dict.fromkeys(line.level.name for line in trained))
    found = {(line.dataset, line.row, line.level.name): line for line in lines}
    body = []
    for dataset, row in dict.fromkeys((line.dataset, line.row) for line in lines):
        places = levels if row not in REFERENCES else ["none"]
        cells: list[Value] = [_cell(found.get((dataset, row, name))) for name in places]
        if not any(cells):
            continue
        seeds = {len(line.cell.records) for line in trained if (line.dataset, line.row) == (dataset, row) and line.cell}
        count = "" if not seeds else f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)}-{max(seeds)}"
        empty: list[Value] = ["" for _ in levels[len(places) :]]
        body.append((display_name(dataset), row, *cells, *empty, count))
    return Grid(
        ("data set", "row", *("no noise" if n == "none" else n for n in levels), "seeds"),
        tuple(body),
        _compact_notes(trained),
    )


def _cell(line: Line | None) -> str | None:
    if line is None or line.cell is None:
        return None
    numbers = " / ".join(f"{line.cell.figures[metric].mean:.1f}" for metric in METRICS)
    return numbers + (" ▼" if line.worse["hr@50"] is True else "")


def _compact_notes(lines: Sequence[Line]) -> tuple[str, ...]:
    records = records_of(lines)
    rounds, shares = ({getattr(r.spec.training, name) for r in records} for name in ("rounds", "participation"))
    notes = [
        "HR@50 / NDCG@50 on the test split in percent, means over seeds; – : not run. Rows of which nothing is stored are left out. ▼: HR@50 is worse than without "
        "noise at 5 % (paired randomization test over users, so of these trained models; Holm over the lines of a data set).",
        f"At most {_range(rounds)} rounds with a share of {_range(shares)} of the clients.",
    ]
    noisy = [record.privacy for record in records if record.privacy is not None]
    if any(found.epsilon is None for found in noisy):
        scales = sorted({found.noise_scale for found in noisy if found.noise_scale is not None})
        notes.append(f"Paper: noise of standard deviation {_range(scales)} on gradients that are not clipped, ε = ∞.")
    accounted = [found for found in noisy if found.epsilon is not None]
    if accounted:
        deltas = _range({found.delta for found in accounted if found.delta is not None})
        bounds = _range({found.clip for found in accounted if found.clip is not None})
        notes.append(f"ε: of the whole run, {accounted[0].adjacency}, δ = {deltas}, C = {bounds or 'adaptive'}.")
    return tuple(notes)


def _range(values: Iterable[float]) -> str:
    """`60` or `16 to 60`."""
    ordered = sorted(set(values))
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys([*ordered[:1], *ordered[-1:]]))


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
        if line.row in REFERENCES:
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
