"""One self-contained HTML page about everything in a results folder; opens from disk, asks nothing of the network.

Tables (sortable; hover a number for its interval, seeds, parameters and p values), verdicts, learning curves, router
weights, cost per cell, and the manifest of every run behind every number. Imports its neighbours; the pictures need
the extra [report].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from fedvlr_plugin.benchmark.cost_accuracy import cost_accuracy_grid, cost_points, levels
from fedvlr_plugin.benchmark.cost_accuracy_picture import cost_accuracy_picture
from fedvlr_plugin.benchmark.grids import Grid, shown
from fedvlr_plugin.benchmark.layouts import blocks, verdicts, warm_and_cold
from fedvlr_plugin.benchmark.overall import rank_grid
from fedvlr_plugin.benchmark.paper import METRICS, display_name
from fedvlr_plugin.benchmark.plots import bars, inline_svg, learning_curves
from fedvlr_plugin.benchmark.rebuild import stored_profiles, stored_table
from fedvlr_plugin.benchmark.record import RunRecord
from fedvlr_plugin.benchmark.router_figure import RouterGroup, router_grid, table_groups, weight_bars
from fedvlr_plugin.benchmark.store import ResultsStore
from fedvlr_plugin.benchmark.table import Cell, Table, caption
from fedvlr_plugin.benchmark.table4_section import noise_section
from fedvlr_plugin.errors import ResultsError


def build_report(store: ResultsStore) -> str:
    """The page; raises `ResultsError` if nothing is stored or a file is damaged."""
    found = stored_profiles(store)
    if not found:
        raise ResultsError(f"no runs are stored in '{store.root}'; fill it with benchmarks/run_table2.py first")
    parts = []
    for number, (profile, protocol) in enumerate(found):
        table = stored_table(store, profile, protocol)
        parts.append(f"<h2>Profile {escape(profile)}, protocol {escape(protocol)}</h2>")
        parts.append(_section(store, table, f"s{number}"))
        noise = noise_section(store, profile, protocol, f"s{number}-noise")
        if noise is not None:
            grid, pictures, cells = noise
            parts.append(_details("Noise and privacy", _grid(grid) + pictures + "".join(map(_manifest, cells))))
    page = Template((files("fedvlr_plugin.benchmark") / "published" / "report.html").read_text(encoding="utf-8"))
    return page.substitute(body="\n".join(parts))


def _section(store: ResultsStore, table: Table, prefix: str) -> str:
    parts = [_main_table(table), "".join(f"<p>{escape(line)}</p>" for line in caption(table))]
    for title, kind in (
        ("HR@50 on warm and cold positives", warm_and_cold(table)),
        ("The paper's figures", verdicts(table)),
    ):
        if kind:
            headings = ["row", *(f"{block.title} {heading}" for block in kind for heading in block.headings)]
            lines = [[row, *(t.text for b in kind for t in b.lines[i])] for i, row in enumerate(table.rows)]
            parts.append(_details(title, _html_table(headings, lines)))
    curves = ""
    for dataset in table.datasets:
        chosen = {
            row: cell.records[0]
            for (row, name), cell in table.cells.items()
            if name == dataset and cell.records[0].curve
        }
        if chosen:
            curves += inline_svg(learning_curves(chosen, display_name(dataset)), f"{prefix}-{_slug(dataset)}")
    if curves:
        parts.append(_details("Learning curves", curves))
    points = cost_points(table)
    if points:
        picture = inline_svg(cost_accuracy_picture(points, levels(table)), f"{prefix}-cost")
        parts.append(_details("Bytes sent and accuracy", picture + _grid(cost_accuracy_grid(points))))
    groups = table_groups(store, table)
    if groups:
        parts.append(_details("Router weights by user activity", _routers(groups, prefix)))
    full = [row for row in table.rows if all((row, dataset) in table.cells for dataset in table.datasets)]
    if len(table.datasets) > 1 and len(full) > 1:
        parts.append(_details("Mean ranks over data sets", _grid(rank_grid(table))))
    parts.append(_details("Cost per cell", _grid(cost_grid(table))))
    parts.append(_details("Manifest of every run", "".join(_manifest(cell) for cell in table.cells.values())))
    return "\n".join(parts)


def _main_table(table: Table) -> str:
    kind = blocks(table)
    headings = ["row", *(f"{block.title} {heading}" for block in kind for heading in block.headings)]
    places = [(dataset, metric) for dataset in table.datasets for metric in METRICS]
    body = ""
    for i, row in enumerate(table.rows):
        cells = f"<td>{escape(row)}</td>"
        for (dataset, metric), block in zip(places, kind, strict=True):
            for column, text in enumerate(block.lines[i]):
                hover = _hover(table, row, dataset, metric) if column == 0 else ""
                bold = " class='best'" if text.best else ""
                cells += f"<td{bold}{hover}>{escape(text.text)}</td>"
        body += f"<tr>{cells}</tr>\n"
    return _table(headings, body)


def _hover(table: Table, row: str, dataset: str, metric: str) -> str:
    """The title attribute of a number: interval, seeds, parameters, comparisons."""
    cell = table.cells.get((row, dataset))
    if cell is None:
        return ""
    chosen = next(m for m in METRICS if m == metric)
    figure, record = cell.figures[chosen], cell.records[0]
    training = record.spec.training
    lines = [
        f"95 % interval {figure.interval.low:.2f} to {figure.interval.high:.2f}",
        "by seed: " + ", ".join(f"{r.seed}: {r.test[metric]:.2f}" for r in cell.records),
    ]
    if record.rounds:
        rates = ("client_lr", "server_lr", "server_lr_id", "participation")
        lines.append(", ".join(f"{name} {getattr(training, name):g}" for name in rates))
        lines.append("best round: " + ", ".join(f"{r.best_round} of {r.rounds}" for r in cell.records))
    if record.spec.model.params:
        lines.append(", ".join(f"{k} {v}" for k, v in record.spec.model.params.items()))
    for pair in table.pairs_of(row, dataset, chosen):
        lines.append(f"{pair.comparison.difference:+.2f} against {pair.against}, corrected p {pair.adjusted_p:.4f}")
    return f' title="{escape(chr(10).join(lines))}"'


def _routers(groups: Sequence[RouterGroup], prefix: str) -> str:
    pictures = ""
    for dataset, row in dict.fromkeys((g.dataset, g.row) for g in groups):
        mine = [g for g in groups if (g.dataset, g.row) == (dataset, row)]
        names = [f"{g.least}-{g.most}" for g in mine]
        picture = bars(names, weight_bars(mine), f"{display_name(dataset)} {row}: weight")
        pictures += inline_svg(picture, f"{prefix}-{_slug(dataset)}-{_slug(row)}")
    return _grid(router_grid(groups)) + pictures


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


def _manifest(cell: Cell) -> str:
    return "".join(_one_manifest(record) for record in cell.records)


def _one_manifest(record: RunRecord) -> str:
    content = record.model_dump(mode="json", exclude={"curve"})
    title = f"{record.dataset} {record.row}, seed {record.seed}, {record.key}"
    return _details(title, f"<pre>{escape(json.dumps(content, indent=1))}</pre>")


def _grid(grid: Grid) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in grid.notes)
    return _html_table(list(grid.headings), [[shown(value) for value in line] for line in grid.lines]) + notes


def _html_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in line) + "</tr>\n" for line in lines)
    return _table(headings, body)


def _table(headings: Sequence[str], body: str) -> str:
    head = "".join(f"<th tabindex='0'>{escape(heading)}</th>" for heading in headings)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)
