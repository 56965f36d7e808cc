"""What a runner makes of finished runs: Table 2, Table 4, Figure 2 or Figure 3, on the terminal and as files.

A product names the rows it takes by default, the runs it needs beyond the table's, and how it is drawn. Imports its
neighbours; pictures need the extra [report] and are left out, with a line saying so, where it is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedvlr_plugin.benchmark.ablation import ablation, ablation_grid
from fedvlr_plugin.benchmark.claims import claims_grid, findings
from fedvlr_plugin.benchmark.cost_accuracy import cost_accuracy_grid, cost_points, levels
from fedvlr_plugin.benchmark.cost_accuracy_picture import cost_accuracy_picture
from fedvlr_plugin.benchmark.feature_labels import random_lines, warned
from fedvlr_plugin.benchmark.grids import Grid, print_grid, write_grid
from fedvlr_plugin.benchmark.latex import latex
from fedvlr_plugin.benchmark.layouts import csv_text, markdown, print_table
from fedvlr_plugin.benchmark.plots import Bar, bars, save_picture
from fedvlr_plugin.benchmark.router_figure import RouterGroup, router_grid, table_groups
from fedvlr_plugin.benchmark.router_picture import router_picture
from fedvlr_plugin.benchmark.table import Figure, Table, build_table, left_out
from fedvlr_plugin.benchmark.table_picture import table_picture
from fedvlr_plugin.cli.options import Options
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError, MissingExtraError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import federated_rows, known_rows, parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import FULL, all_variants
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.paper.tables import display_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Finished:
    """Finished runs and where to show them.

    Attributes:
        fingerprints, modalities: of the data the runs were made on, by data set.
        suffix: the profile and the protocol, for file names.
    """

    specs: Sequence[RunSpec]
    rows: Sequence[str]
    datasets: Sequence[str]
    fingerprints: Mapping[str, str]
    modalities: Mapping[str, Sequence[str]]
    store: ResultsStore
    profile: str
    suffix: str
    console: Console
    say: Callable[[str], None]


@dataclass(frozen=True)
class Product:
    """See the module. `check` raises `ConfigError` for rows it cannot use, before any work."""

    rows: Callable[[], list[str]]
    check: Callable[[Sequence[str]], None]
    more: Callable[[Sequence[RunSpec], Mapping[str, PreparedData]], list[RunSpec]]
    finish: Callable[[Finished], None]
    keep: tuple[str, ...] = ()  # private results that this product is made of
    datasets: tuple[str, ...] | None = None  # by default; None = all that are found


def _table2(done: Finished) -> None:
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


def _cost_accuracy(done: Finished, table: Table) -> None:
    """Bytes sent per client against NDCG@50, beside Table 2; nothing where no federated row was run."""
    points = cost_points(table)
    if not points:
        return
    stem = done.store.root / "figures" / f"cost-accuracy-{done.suffix}"
    paths = write_grid(_noted(done, table, cost_accuracy_grid(points)), stem)
    paths += draw(done, lambda: stamped(done, cost_accuracy_picture(points, levels(table))), stem)
    done.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _figure2(done: Finished) -> None:
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


def _stamped_routers(done: Finished, groups: Sequence[RouterGroup]) -> Picture:
    return stamped(done, router_picture(groups))


def _figure3(done: Finished) -> None:
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
    done: Finished, groups: Sequence[str], series: Mapping[str, Sequence[Bar]], label: str, stem: Path, *names: str
) -> list[Path]:
    return draw(done, lambda: stamped(done, bars(groups, series, label)), stem.with_name("-".join([stem.name, *names])))


def _noted(done: Finished, table: Table, grid: Grid) -> Grid:
    """The grid of a table, below it what else a reader must know: random features, runs that were left out."""
    grid = warned(grid, records_of(done))
    return replace(grid, notes=(*grid.notes, *left_out(table.other_versions)))


def records_of(done: Finished) -> list[RunRecord]:
    """The stored records of the runs."""
    return done.store.records({spec.spec_hash for spec in done.specs})


def stamped(done: Finished, picture: Picture) -> Picture:
    """A picture has no notes, so features of random weights are named above it."""
    lines = random_lines(records_of(done))
    if lines:
        names = ", ".join(line.removeprefix("Features of ").partition(":")[0] for line in lines)
        picture.suptitle(
            f"RANDOM WEIGHTS, not a trained encoder, made features of {names}", color="#b5543c", fontsize=9
        )
    return picture


def draw(done: Finished, picture: Callable[[], Picture], stem: Path) -> list[Path]:
    """Draws a picture and writes it as PNG and SVG; without matplotlib says so and returns nothing."""
    try:
        return save_picture(picture(), stem)
    except MissingExtraError as error:
        done.say(f"No picture: {error}")
        return []


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


PRODUCTS: Mapping[str, Product] = {
    "table2": Product(known_rows, lambda rows: None, _nothing_more, _table2),
    "figure2": Product(_with_router, _only_routers, _nothing_more, _figure2, ("router_weights",)),
    "figure3": Product(_with_router, _only_fused, _variants_only, _figure3),
}


def get_product(name: str, options: Options) -> Product:
    """The product called `name`, as the options want it."""
    if name == "table4":
        from fedvlr_plugin.benchmark.table4_product import table4

        return table4(options.noise)
    return PRODUCTS[name]
