"""The tables and figures that the programs make: Table 2, Table 4, Figure 2, Figure 3, on the terminal and as files.

Pictures need the extra [report] and are left out, with a line saying so, where it is not installed.

Table 4 has files for each data set: `tables/table4-*` (all lines), for KU `tables/table4-*-paper` (the paper's ten lines
beside ours), in the forms of `grid` and as pictures; `figures/privacy-curve-*` (numbers, and a picture per metric).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.rows import REFERENCES, federated_rows, known_rows, parse_row
from fedvlr_plugin.experiment.variants import FULL, Level, all_variants, levels, noisy_runs
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.paper.tables import METRICS, Metric, display_name
from fedvlr_plugin.privacy.guarantee import guarantee_of
from fedvlr_plugin.reporting.captions import warned
from fedvlr_plugin.reporting.claims import claims_grid, findings
from fedvlr_plugin.reporting.cost_accuracy import cost_accuracy_grid, cost_accuracy_picture, cost_points
from fedvlr_plugin.reporting.cost_accuracy import levels as cost_levels
from fedvlr_plugin.reporting.figure2 import RouterGroup, router_grid, router_picture, table_groups
from fedvlr_plugin.reporting.figure3 import ablation, ablation_grid
from fedvlr_plugin.reporting.grid import Grid, print_grid, write_grid
from fedvlr_plugin.reporting.output import FinishedRuns, Output, _noted, draw, records_of, stamped
from fedvlr_plugin.reporting.plots import Bar, bars
from fedvlr_plugin.reporting.results_table import Figure, Table, build_table
from fedvlr_plugin.reporting.table4 import PAPER_DATASET, Line, table4_lines
from fedvlr_plugin.reporting.table4_formats import curve, curve_grid, is_accounted, noise_grid, paper_grid
from fedvlr_plugin.reporting.table_formats import csv_text, latex, markdown, print_table
from fedvlr_plugin.reporting.table_image import grid_picture, table_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def _table2(done: FinishedRuns) -> None:
    table = build_table(done.store, done.specs, done.fingerprints, done.profile, done.rows, done.datasets)
    print_table(table, done.console)
    stem = done.store.root / "tables" / f"table2-{done.suffix}"
    for kind, text in ((".md", markdown(table)), (".csv", csv_text(table)), (".tex", latex(table))):
        write_atomic(stem.with_suffix(kind), text.encode())
    pictures = draw(done, lambda: table_picture(table), stem)
    kinds = ", ".join(f"'{kind}'" for kind in (".csv", ".tex", *(path.suffix for path in pictures)))
    done.say(f"Written: '{stem}.md', {kinds}.")
    found = findings(done.store, table)
    if found:
        claims = write_grid(_noted(done, table, claims_grid(found)), stem.with_name(f"claims-{done.suffix}"))
        done.say(f"What the runs say of the paper's claims: '{claims[0]}'.")
    _cost_accuracy(done, table)


def _cost_accuracy(done: FinishedRuns, table: Table) -> None:
    """Bytes sent per client against NDCG@50, beside Table 2; nothing where no federated row was run."""
    points = cost_points(table)
    if not points:
        return
    stem = done.store.root / "figures" / f"cost-accuracy-{done.suffix}"
    paths = write_grid(_noted(done, table, cost_accuracy_grid(points)), stem)
    paths += draw(done, lambda: stamped(done, cost_accuracy_picture(points, cost_levels(table))), stem)
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _figure2(done: FinishedRuns) -> None:
    table = build_table(done.store, done.specs, done.fingerprints, done.profile, done.rows, done.datasets)
    groups = table_groups(done.store, table)
    stem = done.store.root / "figures" / f"figure2-{done.suffix}"
    grid = _noted(done, table, router_grid(groups))
    print_grid(grid, done.console)
    paths = write_grid(grid, stem)
    for dataset, row in dict.fromkeys((g.dataset, g.row) for g in groups):
        mine = [g for g in groups if (g.dataset, g.row) == (dataset, row)]
        own = stem.with_name(f"{stem.name}-{dataset}-{row}")
        paths += draw(done, partial(_stamped_routers, done, mine), own)
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _stamped_routers(done: FinishedRuns, groups: Sequence[RouterGroup]) -> Picture:
    return stamped(done, router_picture(groups))


def _figure3(done: FinishedRuns) -> None:
    variants = ablation(done.store, done.specs, done.modalities, done.fingerprints)
    stem = done.store.root / "figures" / f"figure3-{done.suffix}"
    grid = warned(ablation_grid(variants), records_of(done))
    print_grid(grid, done.console)
    paths = write_grid(grid, stem)
    for dataset in done.datasets:
        mine = {(v.row, v.name): v.ndcg for v in variants if v.dataset == dataset and v.ndcg is not None}
        rows = [row for row in done.rows if sum(row == other for other, _ in mine) > 1]
        names = dict.fromkeys(name for row, name in mine if row in rows)
        series = {name: [_bar(mine.get((row, name))) for row in rows] for name in names}
        if rows:
            paths += _draw(done, rows, series, f"{display_name(dataset)}: NDCG@50, %", stem, dataset)
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _bar(figure: Figure | None) -> Bar:
    """Mean and 95 % interval; not a number, hence no bar, where nothing is stored."""
    if figure is None:
        return math.nan, math.nan, math.nan
    return figure.mean, figure.interval.low, figure.interval.high


def _draw(
    done: FinishedRuns, groups: Sequence[str], series: Mapping[str, Sequence[Bar]], label: str, stem: Path, *names: str
) -> list[Path]:
    return draw(done, lambda: stamped(done, bars(groups, series, label)), stem.with_name("-".join([stem.name, *names])))


def _variants_only(specs: Sequence[RunSpec], data: Mapping[str, PreparedData]) -> list[RunSpec]:
    """The runs of Figure 3 beyond the full rows."""
    modalities = {name: list(prepared.features) for name, prepared in data.items()}
    return [spec for name, runs in all_variants(specs, modalities).items() if name != FULL for spec in runs]


def _with_router() -> list[str]:
    return [row for row in federated_rows() if parse_row(row).fusion == "blfm"]


def _only_routers(rows: Sequence[str]) -> None:
    _refuse(rows, [row for row in rows if parse_row(row).fusion == "blfm"], "have routers; use +ours rows")


def _only_fused(rows: Sequence[str]) -> None:
    fused = [row for row in rows if parse_row(row).fusion in ("mlp", "blfm")]
    _refuse(rows, fused, "fuse contents with the ID table; use +MLP or +ours rows")


def _refuse(rows: Sequence[str], good: Sequence[str], what: str) -> None:
    bad = [row for row in rows if row not in good]
    if bad:
        raise ConfigError(f"row '{bad[0]}' cannot be drawn here: only rows that {what}")


def _nothing_more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData]) -> list[RunSpec]:
    return []


def table4(options: NoiseOptions) -> Output:
    """The product, for the runners."""
    wanted = levels(options)

    def more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData]) -> list[RunSpec]:
        runs = noisy_runs(specs, wanted)
        for spec in runs:  # an epsilon out of reach, or a missing package, is told before any work
            guarantee_of(spec, data[spec.dataset].interactions.n_users)
        return runs

    def finish(done: FinishedRuns) -> None:
        _finish(done, wanted)

    return Output(_rows, _check, more, finish, datasets=("ku", "ml"), references=True)


def _rows() -> list[str]:
    return [
        *REFERENCES,
        *(row for name in BACKBONES.names() if BACKBONES.get(name).id_only for row in (name, f"{name}+ours")),
    ]


def _check(rows: Sequence[str]) -> None:
    for row in rows:
        if parse_row(row).kind == "recbole":
            raise ConfigError(
                f"row '{row}' cannot be drawn here: it is centralized, so nothing is sent that noise goes on"
            )


def _finish(done: FinishedRuns, wanted: Sequence[Level]) -> None:
    """Tables and curve of each data set, in files of their own, so that data sets can be computed one by one."""
    tables, figures = done.store.root / "tables", done.store.root / "figures"
    paths: list[Path] = []
    every = table4_lines(done.store, done.specs, wanted, done.fingerprints)
    for dataset in done.datasets:
        lines = [line for line in every if line.dataset == dataset]
        mine = [record for record in records_of(done) if record.dataset == dataset]
        grid = warned(noise_grid(lines), mine)
        print_grid(grid, done.console)
        paths += _write(done, grid, tables / f"table4-{done.suffix}-{dataset}")
        if dataset == PAPER_DATASET and any(line.level.name == "paper" for line in lines):
            beside = warned(paper_grid(lines), mine)
            print_grid(beside, done.console)
            paths += _write(done, beside, tables / f"table4-{done.suffix}-{dataset}-paper")
        if any(is_accounted(line) for line in lines):
            stem = figures / f"privacy-curve-{done.suffix}-{dataset}"
            paths += write_grid(warned(curve_grid(lines), mine), stem)
            paths += _pictures(done, lines, stem, display_name(dataset))
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{tables}' and '{figures}'.")


def _write(done: FinishedRuns, grid: Grid, stem: Path) -> list[Path]:
    """A table in all its forms, as a picture too."""
    return [*write_grid(grid, stem), *draw(done, lambda: grid_picture(grid), stem)]


def _pictures(done: FinishedRuns, lines: Sequence[Line], stem: Path, title: str) -> list[Path]:
    paths: list[Path] = []
    for metric in METRICS:
        name = f"{stem.name}-{metric.partition('@')[0]}"
        paths += draw(done, partial(_curve, done, lines, metric, title), stem.with_name(name))
    return paths


def _curve(done: FinishedRuns, lines: Sequence[Line], metric: Metric, title: str) -> Picture:
    return stamped(done, curve(lines, metric, title))


OUTPUTS: Mapping[str, Output] = {
    "table2": Output(known_rows, lambda rows: None, _nothing_more, _table2, references=True, controls=True),
    "figure2": Output(_with_router, _only_routers, _nothing_more, _figure2, ("router_weights",)),
    "figure3": Output(_with_router, _only_fused, _variants_only, _figure3),
}


def get_output(name: str, noise: NoiseOptions) -> Output:
    """The output called `name`; `noise` is what Table 4 shows."""
    return table4(noise) if name == "table4" else OUTPUTS[name]
