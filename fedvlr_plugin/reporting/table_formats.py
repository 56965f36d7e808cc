"""Table 2 laid out: for the terminal, as Markdown, as CSV. Only spelling happens here, no arithmetic.

A data set has the columns HR@50 and NDCG@50, each followed by the paper's value and the difference where the paper
has the data set.
Table 2 for LaTeX, with booktabs. Spelling only; imports `grids`, `layouts` and `table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from tabulate import tabulate

from fedvlr_plugin.experiment.controls import row_of
from fedvlr_plugin.paper.tables import DATASETS, METRICS, Metric, display_name, paper_failed, paper_value
from fedvlr_plugin.privacy.guarantee import format_epsilon
from fedvlr_plugin.reporting.captions import caption, epsilon_label
from fedvlr_plugin.reporting.grid import LATEX_LETTERS
from fedvlr_plugin.reporting.results_table import Figure, Table, kind_of

HEADINGS: dict[Metric, str] = {"hr@50": "HR@50", "ndcg@50": "NDCG@50"}
EMPTY = "–"
FAILED = "failed"
OTHER = "≠"


@dataclass(frozen=True)
class Text:
    """One cell as it is spelled; `best` asks for bold type."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Block:
    """The columns of one data set: headings and, row by row, what they hold."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[Text, ...], ...]


def blocks(table: Table) -> list[Block]:
    """The columns of the table, by data set and metric."""
    return [_block(table, dataset, metric) for dataset in table.datasets for metric in METRICS]


def _block(table: Table, dataset: str, metric: Metric) -> Block:
    with_paper = dataset in DATASETS
    lines = []
    for row in table.rows:
        figure = table.figure(row, dataset, metric)
        best = figure is not None and table.best(dataset, metric) == row
        noise = epsilon_label(table.cells[row, dataset].records) if (row, dataset) in table.cells else ""
        line = [Text(spell(figure) + marks(table, row, dataset, metric) + noise, best)]
        line.append(Text("" if figure is None else f"{figure.interval.low:.2f}..{figure.interval.high:.2f}"))
        lines.append(tuple(line + (_paper(figure, row, dataset, metric) if with_paper else [])))
    headings = (HEADINGS[metric], "95 %", *(("paper", "Δ") if with_paper else ()))
    return Block(display_name(dataset), headings, tuple(lines))


def _paper(figure: Figure | None, row: str, dataset: str, metric: Metric) -> list[Text]:
    value = paper_value(row, dataset, metric)
    if value is None:
        return [Text(FAILED if paper_failed(row, dataset) else ""), Text("")]
    if figure is None or figure.difference is None:
        return [Text(f"{value:.2f}"), Text("")]
    if figure.verdict is not None and figure.verdict.word == "not comparable":
        return [Text(f"{value:.2f}"), Text(OTHER)]
    return [Text(f"{value:.2f}"), Text(f"{figure.difference:+.2f}")]


def spell(figure: Figure | None) -> str:
    """`38.24 ± 1.10`, without the second part for a single seed, a dash where nothing is stored."""
    if figure is None:
        return EMPTY
    return f"{figure.mean:.2f}" if figure.sd is None else f"{figure.mean:.2f} ± {figure.sd:.2f}"


def marks(table: Table, row: str, dataset: str, metric: Metric) -> str:
    """Signs for significant differences: `*` `▼` against the vanilla row, `†` `▽` against +MLP."""
    signs = ""
    for pair in table.pairs_of(row, dataset, metric):
        if pair.better is not None:
            better, worse = ("†", "▽") if pair.against.endswith("+MLP") else ("*", "▼")
            signs += better if pair.better else worse
    return f" {signs}" if signs else ""


def verdicts(table: Table) -> list[Block]:
    """What became of each of the paper's figures, for the data sets that the paper has."""
    return [
        Block(
            display_name(dataset),
            tuple(HEADINGS[metric] for metric in METRICS),
            tuple(tuple(Text(str(table.verdict(row, dataset, m) or "")) for m in METRICS) for row in table.rows),
        )
        for dataset in table.datasets
        if dataset in DATASETS
    ]


def warm_and_cold(table: Table) -> list[Block]:
    """HR@50 on positives that do and do not occur in training; data sets without cold positives are left out."""
    result = []
    for dataset in table.datasets:
        cells = {row: table.cells.get((row, dataset)) for row in table.rows}
        share = max((cell.cold_share for cell in cells.values() if cell is not None), default=0.0)
        if share == 0.0:
            continue
        lines = tuple(
            tuple(Text(EMPTY if cell is None or value is None else f"{value:.2f}") for value in pair)
            for cell in cells.values()
            for pair in [(None, None) if cell is None else (cell.warm, cell.cold)]
        )
        result.append(Block(f"{display_name(dataset)} ({share:.1f} % cold)", ("warm HR@50", "cold HR@50"), lines))
    return result


def group_ends(rows: Sequence[str]) -> set[int]:
    """Indices of rows after which a line is drawn: a group is the floors, the centralized rows, or one backbone."""
    plain = [row_of(row) for row in rows]
    groups = [row.partition("+")[0] if kind_of(row) == "federated" else kind_of(row) for row in plain]
    return {i for i in range(len(rows) - 1) if groups[i] != groups[i + 1]}


def print_table(table: Table, console: Console) -> None:
    """Prints to a terminal, as many data sets side by side as fit."""
    ends = group_ends(table.rows)
    for kind in (blocks(table), warm_and_cold(table)):
        for part in _fitting(kind, table.rows, console.width):
            drawn = RichTable()
            drawn.add_column("\nrow", no_wrap=True)
            for block in part:
                for i, heading in enumerate(block.headings):
                    drawn.add_column(f"{'' if i else block.title}\n{heading}", justify="right", no_wrap=True)
            for i, row in enumerate(table.rows):
                texts = [f"[bold]{t.text}[/bold]" if t.best else t.text for block in part for t in block.lines[i]]
                drawn.add_row(row, *texts, end_section=i in ends)
            console.print(drawn)
    for line in caption(table):
        console.print(line, highlight=False)


def _fitting(kind: list[Block], rows: Sequence[str], width: int) -> list[list[Block]]:
    """Groups of blocks whose columns fit into `width` characters; a block that is too wide stands alone."""
    groups: list[list[Block]] = []
    room = 0
    for block in kind:
        columns = [
            max(len(heading), len(block.title) if c == 0 else 0, *(len(line[c].text) for line in block.lines))
            for c, heading in enumerate(block.headings)
        ]
        need = sum(columns) + 3 * len(columns)
        if not groups or need > room:
            groups.append([])
            room = width - max(len(row) for row in rows) - 4
        groups[-1].append(block)
        room -= need
    return groups


def table_and_caption(table: Table) -> str:
    """The table and its caption, in Markdown."""
    return f"\n{_pipe(table, blocks(table))}\n\n" + "\n".join(caption(table)) + "\n\n"


def markdown(table: Table) -> str:
    """The table, its caption, HR@50 on warm and cold positives, and the verdicts on the paper's figures."""
    parts = [_pipe(table, blocks(table)), "\n".join(caption(table))]
    for title, kind in (
        ("HR@50 by whether the positive occurs in training", warm_and_cold(table)),
        ("The paper's figures", verdicts(table)),
    ):
        if kind:
            parts += [f"**{title}**", _pipe(table, kind)]
    return "\n\n".join(parts) + "\n"


def _pipe(table: Table, kind: list[Block]) -> str:
    headers = ["row", *(f"{block.title} {heading}" for block in kind for heading in block.headings)]
    body = [
        [row, *(f"**{t.text}**" if t.best else t.text for block in kind for t in block.lines[i])]
        for i, row in enumerate(table.rows)
    ]
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(body, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def csv_text(table: Table) -> str:
    """One line per row, data set and metric, unrounded, with what defines the runs."""
    lines = []
    for (row, dataset), cell in table.cells.items():
        spec = cell.records[0].spec
        for metric, figure in cell.figures.items():
            lines.append(
                {
                    "row": row,
                    "dataset": dataset,
                    "metric": metric,
                    "mean": figure.mean,
                    "sd": figure.sd,
                    "seeds": figure.n,
                    "low": figure.interval.low,
                    "high": figure.interval.high,
                    "paper": figure.paper,
                    "difference": figure.difference,
                    "verdict": str(figure.verdict or ""),
                    "p_vanilla": _p(table, row, dataset, metric, mlp=False),
                    "p_mlp": _p(table, row, dataset, metric, mlp=True),
                    "epsilon": None if cell.records[0].privacy is None else format_epsilon(cell.records[0].privacy),
                    "hr@50_warm": cell.warm,
                    "hr@50_cold": cell.cold,
                    "cold_share": cell.cold_share,
                    "protocol": spec.protocol.name,
                    "negatives": spec.protocol.negatives,
                    "negative_pool": spec.protocol.negative_pool,
                    "rounds": max(record.rounds for record in cell.records),
                    "spec_hashes": " ".join(record.spec_hash for record in cell.records),
                    "data": cell.records[0].data.fingerprint[:12],
                }
            )
    columns = list(lines[0]) if lines else ["row", "dataset", "metric", "mean"]
    text: str = pd.DataFrame(lines, columns=columns).to_csv(index=False)
    return text


def _p(table: Table, row: str, dataset: str, metric: Metric, mlp: bool) -> float | None:
    """The corrected p of the comparison with +MLP, or with the vanilla row."""
    found = [p.adjusted_p for p in table.pairs_of(row, dataset, metric) if p.against.endswith("+MLP") == mlp]
    return found[0] if found else None


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **LATEX_LETTERS,
}  # fmt: skip


def latex(table: Table) -> str:
    """A `table*` environment; needs the packages booktabs, graphicx and amssymb, and says so in a comment."""
    kind = blocks(table)
    columns = "l" + "".join("r" * len(block.headings) for block in kind)
    lines = [
        r"% \usepackage{booktabs,graphicx,amssymb}",
        r"\begin{table*}",
        rf"\caption{{{escape(' '.join(caption(table)))}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{{len(b.headings)}}}{{c}}{{{escape(b.title)}}}" for b in kind)]) + r" \\",
        " & ".join(["row", *(escape(heading) for block in kind for heading in block.headings)]) + r" \\",
        r"\midrule",
    ]
    ends = group_ends(table.rows)
    for i, row in enumerate(table.rows):
        cells = [_cell(text) for block in kind for text in block.lines[i]]
        lines.append(" & ".join([escape(row), *cells]) + r" \\")
        if i in ends:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]) + "\n"


def _cell(text: Text) -> str:
    return rf"\textbf{{{escape(text.text)}}}" if text.best else escape(text.text)


def escape(text: str) -> str:
    """`text` with LaTeX's special characters, and those of our own, spelled out."""
    return "".join(SPECIAL.get(character, character) for character in text)
