"""One self-contained HTML page about everything in a results folder; opens from disk, asks nothing of the network.

First the paper's claims: a sentence per claim that counts, the evidence of each verdict, and below it the pairs themselves. Then by profile and protocol:
tables with numbers to hover and to click, learning curves, bytes sent, router weights, cost per cell, and the manifest of
every run. Data sets on which the same rows were run share a table; others have one of their own, with the rows that are
missing named below it. The pictures need the extra [report].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from string import Template

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name
from fedvlr_plugin.reporting.captions import caption, warned
from fedvlr_plugin.reporting.claims import Finding, claims_grid, findings
from fedvlr_plugin.reporting.cost_accuracy import cost_accuracy_grid, cost_accuracy_picture, cost_points, levels
from fedvlr_plugin.reporting.evidence import evidence
from fedvlr_plugin.reporting.figure2 import RouterGroup, router_grid, router_picture, table_groups
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.html.elements import (
    HtmlCell,
    block_table,
    details,
    grid_table,
    paragraphs,
    slug,
    sortable_table,
)
from fedvlr_plugin.reporting.mean_ranks import rank_grid
from fedvlr_plugin.reporting.plots import inline_svg, learning_curves
from fedvlr_plugin.reporting.results_table import Cell, Table, kind_of
from fedvlr_plugin.reporting.stored_runs import stored_budget, stored_profiles, stored_table
from fedvlr_plugin.reporting.table2_formats import Block, blocks, group_ends, verdicts, warm_and_cold
from fedvlr_plugin.reporting.table4.grids import noise_section


def build_report(store: ResultsStore) -> str:
    """The page; raises `ResultsError` if nothing is stored or a file is damaged."""
    found = sorted(stored_profiles(store), key=_weight)
    if not found:
        raise ResultsError(f"no runs are stored in '{store.root}'; fill it with benchmarks/run_table2.py first")
    tables = [(_title(*pair), stored_table(store, *pair)) for pair in found]
    parts, contents = [claims_section(store, tables)], ['<a href="#claims">The paper\'s claims</a>']
    for number, ((profile, protocol), (title, table)) in enumerate(zip(found, tables, strict=True)):
        place = f"s{number}"
        contents.append(f'<a href="#{place}">{escape(title)}</a> ({", ".join(map(display_name, table.datasets))})')
        parts.append(f'<h2 id="{place}">{escape(title)}</h2>')
        parts.append(_section(store, table, place))
        budget = stored_budget(store, profile, protocol)
        if budget.lines:
            parts.append(details("What was spent on the searches", grid_table(budget)))
        noise = noise_section(store, profile, protocol, f"{place}-noise")
        if noise is not None:
            grid, pictures, cells = noise
            manifests = "".join(_one_manifest(record) for cell in cells for record in cell.records)
            parts.append(details("Noise and privacy", grid_table(grid) + pictures + details("Manifests", manifests)))
    page = Template((files("fedvlr_plugin.reporting.html") / "report.html").read_text(encoding="utf-8"))
    return page.substitute(contents="; ".join(contents), body="\n".join(parts))


def _weight(found: tuple[str, str]) -> tuple[int, int, str, str]:
    """What was searched comes before first looks, and the corrected protocol before the other."""
    profile, protocol = found
    order = ("paper", "quick", "smoke")
    return order.index(profile) if profile in order else len(order), int(protocol != "corrected"), profile, protocol


def _title(profile: str, protocol: str) -> str:
    return f"Profile {profile}, protocol {protocol}"


def _section(store: ResultsStore, table: Table, prefix: str) -> str:
    parts = [result_tables(table, prefix), paragraphs(caption(table)), more_tables(table)]
    curves = ""
    for dataset in table.datasets:
        chosen = {
            row: cell.records[0]
            for (row, name), cell in table.cells.items()
            if name == dataset and cell.records[0].curve
        }
        if chosen:
            curves += inline_svg(learning_curves(chosen, display_name(dataset)), f"{prefix}-{slug(dataset)}")
    if curves:
        parts.append(details("Learning curves", curves))
    points = cost_points(table)
    if points:
        picture = inline_svg(cost_accuracy_picture(points, levels(table)), f"{prefix}-cost")
        parts.append(details("Bytes sent and accuracy", picture + grid_table(cost_accuracy_grid(points))))
    groups = table_groups(store, table)
    if groups:
        parts.append(details("Router weights by user activity", _routers(groups, prefix)))
    full = [row for row in table.rows if all((row, dataset) in table.cells for dataset in table.datasets)]
    if len(table.datasets) > 1 and len(full) > 1:
        parts.append(details("Mean ranks over data sets", grid_table(rank_grid(table))))
    parts.append(details("Cost per cell", grid_table(cost_grid(table))))
    manifests = "".join(_manifest(cell, prefix) for cell in table.cells.values())
    parts.append(details("Manifest of every run", manifests))
    return "\n".join(parts)


def _routers(groups: Sequence[RouterGroup], prefix: str) -> str:
    pictures = ""
    for dataset, row in dict.fromkeys((g.dataset, g.row) for g in groups):
        mine = [g for g in groups if (g.dataset, g.row) == (dataset, row)]
        pictures += inline_svg(router_picture(mine), f"{prefix}-{slug(dataset)}-{slug(row)}")
    return grid_table(router_grid(groups)) + pictures


def cost_grid(table: Table) -> Grid:
    """What each cell cost: means over its runs."""
    lines = []
    for (row, dataset), cell in table.cells.items():
        costs = [record.cost for record in cell.records]
        updates = [c.client_updates_per_s for c in costs if c.client_updates_per_s is not None]
        lines.append(
            (
                dataset,
                row,
                len(costs),
                sum(r.rounds for r in cell.records) / len(costs),
                sum(c.wall_s for c in costs) / len(costs),
                sum(c.cpu_s for c in costs) / len(costs),
                max(c.peak_rss_bytes for c in costs) / 2**20,
                sum(updates) / len(updates) if updates else None,
                cell.records[0].environment.gpu_model or cell.records[0].environment.cpu_model,
            )
        )
    headings = ("data set", "row", "runs", "rounds", "wall s", "CPU s", "peak MiB", "client updates/s", "device")
    return Grid(headings, tuple(lines))


def _manifest(cell: Cell, prefix: str) -> str:
    runs = "".join(_one_manifest(record) for record in cell.records)
    return details(f"{cell.dataset} {cell.row}", runs, place_of(prefix, cell.row, cell.dataset))


def _one_manifest(record: RunRecord) -> str:
    content = record.model_dump(mode="json", exclude={"curve"})
    title = f"{record.dataset} {record.row}, seed {record.seed}, {record.key}"
    return details(title, f"<pre>{escape(json.dumps(content, indent=1))}</pre>")


NOTHING = "No two rows that a claim is about are stored on one data set, so nothing can be said of the claims yet."


def claims_section(store: ResultsStore, tables: Sequence[tuple[str, Table]]) -> str:
    """For each titled table that says something of a claim: what holds, what does not, what is undecided."""
    parts = []
    for title, table in tables:
        found = findings(store, table)
        if found:
            sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in evidence(store, table, found))
            parts.append(f"<h3>{escape(title)}</h3><ul>{sentences}</ul>{grid_table(_filled(found, table))}")
    body = "\n".join(parts) or f"<p>{escape(NOTHING)}</p>"
    return f'<h2 id="claims">What the runs say of the paper&#x27;s claims</h2>\n{body}'


def _filled(found: Sequence[Finding], table: Table) -> Grid:
    """The grid of claims without empty cells: `none` where no pair is, a dash where the paper has no figures."""
    grid = claims_grid(found)
    paper = grid.headings.index("paper")
    lines = tuple(
        tuple(value or ("–" if column == paper else "none") for column, value in enumerate(line)) for line in grid.lines
    )
    return warned(replace(grid, lines=lines), [record for cell in table.cells.values() for record in cell.records])


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
        compared = pair.comparison
        lines.append(
            f"{compared.difference:+.2f} against {pair.against}, corrected p {compared.adjusted_p:.4f} over seeds and users, "
            f"{compared.users_p:.4f} over users: {compared.outcome}"
        )
    return "\n".join(lines)
