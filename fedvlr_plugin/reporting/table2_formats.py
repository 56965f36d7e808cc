"""Table 2 for the terminal, Markdown, CSV and LaTeX: what stands in which cell, without arithmetic.

A data set has the columns HR@50 and NDCG@50, each followed by the paper's value and the difference where the paper has
the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from fedvlr_plugin.experiment.controls import row_of
from fedvlr_plugin.paper.tables import DATASETS, METRICS, Metric, display_name, paper_failed, paper_value
from fedvlr_plugin.privacy.guarantee import format_epsilon
from fedvlr_plugin.reporting.captions import caption, epsilon_label
from fedvlr_plugin.reporting.grid import EMPTY, Value, format_interval, format_mean_sd
from fedvlr_plugin.reporting.results_table import Figure, Table, kind_of
from fedvlr_plugin.reporting.table_formats import (
    Align,
    bold_markdown,
    csv_table,
    escape_latex,
    latex_line,
    latex_tabular,
    markdown_table,
)

HEADINGS: dict[Metric, str] = {"hr@50": "HR@50", "ndcg@50": "NDCG@50"}
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
        line = [Text(format_figure(figure) + marks(table, row, dataset, metric) + noise, best)]
        line.append(Text("" if figure is None else format_interval(figure.interval.low, figure.interval.high)))
        lines.append(tuple(line + (_paper_cells(figure, row, dataset, metric) if with_paper else [])))
    headings = (HEADINGS[metric], "95 %", *(("paper", "Δ") if with_paper else ()))
    return Block(display_name(dataset), headings, tuple(lines))


def _paper_cells(figure: Figure | None, row: str, dataset: str, metric: Metric) -> list[Text]:
    value = paper_value(row, dataset, metric)
    if value is None:
        return [Text(FAILED if paper_failed(row, dataset) else ""), Text("")]
    if figure is None or figure.difference is None:
        return [Text(f"{value:.2f}"), Text("")]
    if figure.verdict is not None and figure.verdict.word == "not comparable":
        return [Text(f"{value:.2f}"), Text(OTHER)]
    return [Text(f"{value:.2f}"), Text(f"{figure.difference:+.2f}")]


def format_figure(figure: Figure | None) -> str:
    """Return `38.24 ± 1.10`, without the second part for a single seed, or a dash where nothing is stored."""
    return EMPTY if figure is None else format_mean_sd(figure.mean, figure.sd)


def marks(table: Table, row: str, dataset: str, metric: Metric) -> str:
    """Return the signs of verdicts: `▲` `▼` against the vanilla row, `†` `▽` against +MLP.

    In brackets where only these trained models differ: too few seeds or rounds for a verdict, or other seeds may differ.

    None of them is markup in Markdown, where the cell may be in bold type.
    """
    signs = ""
    for pair in table.pairs_of(row, dataset, metric):
        better, worse = ("†", "▽") if pair.against.endswith("+MLP") else ("▲", "▼")
        if pair.better is not None:
            signs += better if pair.better else worse
        elif pair.models_better is not None:
            signs += f"({better if pair.models_better else worse})"
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
    """Print to a terminal, as many data sets side by side as fit."""
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
    """Return the table and its caption in Markdown."""
    return f"\n{_markdown_blocks(table, blocks(table))}\n\n" + "\n".join(caption(table)) + "\n\n"


def markdown(table: Table) -> str:
    """Return the table, its caption, HR@50 on warm and cold positives, and the verdicts on the paper's figures."""
    parts = [_markdown_blocks(table, blocks(table)), "\n".join(caption(table))]
    for title, column_blocks in (
        ("HR@50 by whether the positive occurs in training", warm_and_cold(table)),
        ("The paper's figures", verdicts(table)),
    ):
        if column_blocks:
            parts += [bold_markdown(title), _markdown_blocks(table, column_blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown_blocks(table: Table, column_blocks: Sequence[Block]) -> str:
    headings = ["row", *(f"{block.title} {heading}" for block in column_blocks for heading in block.headings)]
    lines = [
        [row, *(bold_markdown(t.text) if t.best else t.text for block in column_blocks for t in block.lines[number])]
        for number, row in enumerate(table.rows)
    ]
    to_the_right: Align = "right"
    return markdown_table(headings, lines, ["left", *[to_the_right] * (len(headings) - 1)])


CSV_COLUMNS = (
    "row", "dataset", "metric", "mean", "sd", "seeds", "low", "high", "paper", "difference", "verdict", "p_vanilla",
    "p_mlp", "p_vanilla_users", "p_mlp_users", "epsilon", "hr@50_warm", "hr@50_cold", "cold_share", "protocol", "negatives", "negative_pool", "rounds",
    "spec_hashes", "data",
)  # fmt: skip


def csv_text(table: Table) -> str:
    """Return one line per row, data set and metric, unrounded, with what defines the runs."""
    lines: list[tuple[Value, ...]] = []
    for (row, dataset), cell in table.cells.items():
        first = cell.records[0]
        for metric, figure in cell.figures.items():
            lines.append(
                (
                    row,
                    dataset,
                    metric,
                    figure.mean,
                    figure.sd,
                    figure.n,
                    figure.interval.low,
                    figure.interval.high,
                    figure.paper,
                    figure.difference,
                    str(figure.verdict or ""),
                    _adjusted_p(table, row, dataset, metric, mlp=False),
                    _adjusted_p(table, row, dataset, metric, mlp=True),
                    _adjusted_p(table, row, dataset, metric, mlp=False, users=True),
                    _adjusted_p(table, row, dataset, metric, mlp=True, users=True),
                    None if first.privacy is None else format_epsilon(first.privacy),
                    cell.warm,
                    cell.cold,
                    cell.cold_share,
                    first.spec.protocol.name,
                    first.spec.protocol.negatives,
                    first.spec.protocol.negative_pool,
                    max(record.rounds for record in cell.records),
                    " ".join(record.spec_hash for record in cell.records),
                    first.data.fingerprint[:12],
                )
            )
    return csv_table(CSV_COLUMNS if lines else CSV_COLUMNS[:4], lines)


def _adjusted_p(
    table: Table, row: str, dataset: str, metric: Metric, *, mlp: bool, users: bool = False
) -> float | None:
    """Return the corrected p of the comparison with +MLP, or with the vanilla row: over seeds and users, or over users."""
    found = [p.comparison for p in table.pairs_of(row, dataset, metric) if p.against.endswith("+MLP") == mlp]
    if not found:
        return None
    return found[0].users_p if users else found[0].adjusted_p


def latex(table: Table) -> str:
    """Return a `table*` environment; a comment in it names the packages it needs (booktabs, graphicx, amssymb)."""
    column_blocks = blocks(table)
    titles = [rf"\multicolumn{{{len(b.headings)}}}{{c}}{{{escape_latex(b.title)}}}" for b in column_blocks]
    headings = [escape_latex(heading) for block in column_blocks for heading in block.headings]
    body = [
        latex_line([escape_latex(row), *(_latex_cell(t) for block in column_blocks for t in block.lines[number])])
        for number, row in enumerate(table.rows)
    ]
    columns = "l" + "".join("r" * len(block.headings) for block in column_blocks)
    head = [latex_line(["", *titles]), latex_line(["row", *headings])]
    lines = [
        r"% \usepackage{booktabs,graphicx,amssymb}",
        r"\begin{table*}",
        rf"\caption{{{escape_latex(' '.join(caption(table)))}}}",
        r"\resizebox{\textwidth}{!}{%",
        *latex_tabular(columns, head, body, group_ends(table.rows)),
    ]
    return "\n".join(lines) + "}\n\\end{table*}\n"


def _latex_cell(text: Text) -> str:
    return rf"\textbf{{{escape_latex(text.text)}}}" if text.best else escape_latex(text.text)
