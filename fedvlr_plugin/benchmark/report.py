"""One self-contained HTML page about everything in a results folder; opens from disk, asks nothing of the network.

It opens with the paper's claims (`report_claims`). Then by profile and protocol: tables (`report_tables`), learning
curves, bytes sent, router weights, cost per cell, and the manifest of every run.
Imports its neighbours; the pictures need the extra [report].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from fedvlr_plugin.benchmark.budget import stored_budget
from fedvlr_plugin.benchmark.cost_accuracy import cost_accuracy_grid, cost_points, levels
from fedvlr_plugin.benchmark.cost_accuracy_picture import cost_accuracy_picture
from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.html_parts import details, grid_table, paragraphs, slug
from fedvlr_plugin.benchmark.overall import rank_grid
from fedvlr_plugin.benchmark.plots import inline_svg, learning_curves
from fedvlr_plugin.benchmark.rebuild import stored_profiles, stored_table
from fedvlr_plugin.benchmark.report_claims import claims_section
from fedvlr_plugin.benchmark.report_tables import more_tables, place_of, result_tables
from fedvlr_plugin.benchmark.router_figure import RouterGroup, router_grid, table_groups
from fedvlr_plugin.benchmark.router_picture import router_picture
from fedvlr_plugin.benchmark.table import Cell, Table, caption
from fedvlr_plugin.benchmark.table4_section import noise_section
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import display_name


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
    page = Template((files("fedvlr_plugin.benchmark") / "published" / "report.html").read_text(encoding="utf-8"))
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
