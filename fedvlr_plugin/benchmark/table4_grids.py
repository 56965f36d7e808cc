"""Table 4 spelled out: all lines with their epsilon, the paper's ten lines beside ours, and the curve's numbers.

Only spelling happens here. Imports `table4`, `grids` and its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedvlr_plugin.benchmark.grids import Grid, Value
from fedvlr_plugin.benchmark.layouts import HEADINGS, spell
from fedvlr_plugin.benchmark.noise_labels import noise_lines
from fedvlr_plugin.benchmark.table4 import PAPER_DATASET, Line, published4, records_of
from fedvlr_plugin.benchmark.verdict import judge_value
from fedvlr_plugin.experiment.rows import FLOORS
from fedvlr_plugin.paper.tables import METRICS, display_name
from fedvlr_plugin.privacy.guarantee import format_epsilon

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
            mark = {True: " ▼", False: " *", None: ""}[line.worse[metric]]
            around = None if figure is None else f"{figure.interval.low:.2f}..{figure.interval.high:.2f}"
            values += [None if figure is None else spell(figure) + mark, around, line.degrade[metric]]
        body.append(tuple(values))
    return Grid(tuple(headings), tuple(body), tuple(_notes(lines)))


def epsilon_of_line(line: Line) -> str | None:
    """What the stored runs promise; `∞` for a trained row without a promise, nothing for a floor."""
    if line.row in FLOORS or line.cell is None:
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
            around = None if figure is None else figure.interval
            verdict = judge_value(
                value, theirs.row, theirs.metric, None if figure is None else figure.mean, around, data
            )
            values += [value, None if figure is None else spell(figure), str(verdict)]
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
        if line.cell is None or line.row in FLOORS or not (line.level.privacy is None or is_accounted(line)):
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


def _notes(lines: Sequence[Line]) -> list[str]:
    """What a reader must know, from the records."""
    records = records_of(lines)
    trained = [record for record in records if record.row not in FLOORS]
    if not trained:
        return ["No runs are stored."]
    seeds = sorted({len(line.cell.records) for line in lines if line.cell is not None and line.row not in FLOORS})
    missing = sum(line.cell is None for line in lines)
    notes = [
        "HR@50 and NDCG@50 on the test split in percent: mean ± standard deviation over seeds, and the 95 % bootstrap "
        "interval over users. degrade %: lost to the noise, of the figure without it. ▼ significantly worse, * better "
        "than without noise (paired randomisation test over users, Holm over the data set's lines, 5 %).",
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
