"""The tables of results in the report: numbers to hover and to click, and no row where nothing was run.

Data sets on which the same rows were run share a table; others have one of their own, with the rows that are missing
named below it. Imports `table`, `layouts`, `html_parts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedvlr_plugin.benchmark.html_parts import HtmlCell, block_table, details, paragraphs, slug, sortable_table
from fedvlr_plugin.benchmark.layouts import Block, blocks, group_ends, verdicts, warm_and_cold
from fedvlr_plugin.benchmark.table import Table, kind_of
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name


def result_tables(table: Table, prefix: str) -> str:
    """The main tables, each with a line about the rows that were not run."""
    return "".join(_main_table(part, prefix) + paragraphs(_not_run(part, table)) for part in full_parts(table))


def more_tables(table: Table) -> str:
    """Sections that open: warm and cold positives, and what became of the paper's figures."""
    parts = full_parts(table)
    found = ""
    for title, layout in (
        ("HR@50 on warm and cold positives", warm_and_cold),
        ("The paper's figures", verdicts),
    ):
        drawn = "".join(_blocks(part, layout) for part in parts)
        if drawn:
            found += details(title, drawn)
    return found


def _blocks(table: Table, layout: Callable[[Table], list[Block]]) -> str:
    """The layout without rows of which it says nothing, as the paper's figures say nothing of floors."""
    kind = layout(table)
    said = tuple(row for i, row in enumerate(table.rows) if any(text.text for block in kind for text in block.lines[i]))
    return block_table(said, layout(replace(table, rows=said)), group_ends(said)) if said else ""


def full_parts(table: Table) -> list[Table]:
    """The table cut up so that no part has an empty cell: a part for each set of rows that data sets share."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for dataset in table.datasets:
        rows = tuple(row for row in table.rows if (row, dataset) in table.cells)
        if rows:
            shared.setdefault(rows, []).append(dataset)
    return [replace(table, rows=rows, datasets=tuple(datasets)) for rows, datasets in shared.items()]


def place_of(prefix: str, row: str, dataset: str) -> str:
    """Where the manifests of a cell are on the page."""
    return f"{prefix}-runs-{slug(dataset)}-{slug(row)}"


def _not_run(part: Table, table: Table) -> list[str]:
    missing = [row for row in table.rows if row not in part.rows]
    if not missing:
        return []
    return [f"Not run on {', '.join(map(display_name, part.datasets))} under this profile: {', '.join(missing)}."]


def _main_table(table: Table, prefix: str) -> str:
    kind = blocks(table)
    headings = [("", "row"), *((block.title, heading) for block in kind for heading in block.headings)]
    places = [(dataset, metric) for dataset in table.datasets for metric in METRICS]
    lines = []
    for i, row in enumerate(table.rows):
        line = [HtmlCell(row)]
        for (dataset, metric), block in zip(places, kind, strict=True):
            number, *others = block.lines[i]
            hover = _hover(table, row, dataset, metric)
            line.append(HtmlCell(number.text, number.best, hover, place_of(prefix, row, dataset)))
            line += [HtmlCell(text.text) for text in others]
        lines.append(line)
    name = f"{prefix}-table-{'-'.join(map(slug, table.datasets))}"
    return sortable_table(headings, lines, group_ends(table.rows), name)


def _hover(table: Table, row: str, dataset: str, metric: Metric) -> str:
    """What is said about a number: interval, seeds, parameters, comparisons."""
    cell = table.cells[row, dataset]
    figure, record = cell.figures[metric], cell.records[0]
    training = record.spec.training
    lines = [
        f"95 % interval {figure.interval.low:.2f} to {figure.interval.high:.2f}",
        "by seed: " + ", ".join(f"{r.seed}: {r.test[metric]:.2f}" for r in cell.records),
    ]
    if record.rounds:
        rates = ("client_lr", "server_lr", "server_lr_id", "participation") if kind_of(row) == "federated" else ()
        lines += [", ".join(f"{name} {getattr(training, name):g}" for name in rates)] if rates else []
        lines.append("best round: " + ", ".join(f"{r.best_round} of {r.rounds}" for r in cell.records))
    if record.spec.model.params:
        lines.append(", ".join(f"{k} {v}" for k, v in record.spec.model.params.items()))
    for pair in table.pairs_of(row, dataset, metric):
        lines.append(f"{pair.comparison.difference:+.2f} against {pair.against}, corrected p {pair.adjusted_p:.4f}")
    return "\n".join(lines)
