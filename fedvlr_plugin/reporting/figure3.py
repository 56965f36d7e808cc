"""Figure 3: every backbone with a content modality or the ID table left out: really removed, not replaced by noise.

The other settings are those of the full run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import FULL, all_variants
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.captions import warned
from fedvlr_plugin.reporting.drawing import draw, refuse_other_rows, stamped
from fedvlr_plugin.reporting.figure2 import rows_with_routers
from fedvlr_plugin.reporting.grid import Grid, format_interval, format_mean_sd
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN
from fedvlr_plugin.reporting.plots import Bar, bars
from fedvlr_plugin.reporting.results_table import Figure, build_table
from fedvlr_plugin.reporting.table_formats import print_grid, write_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Variant:
    """One variant of a row on a data set: `full` or `w/o <part>`, and its numbers (None if nothing is stored)."""

    dataset: str
    row: str
    name: str
    hr: Figure | None
    ndcg: Figure | None


def ablation(
    store: ResultsStore,
    specs: Sequence[RunSpec],
    modalities: Mapping[str, Sequence[str]],
    fingerprints: Mapping[str, str],
) -> list[Variant]:
    """All variants with their numbers, by data set and row, `full` first; what is known of the data by data set."""
    tables = {name: build_table(store, runs, fingerprints) for name, runs in all_variants(specs, modalities).items()}
    return [
        Variant(dataset, row, name, table.figure(row, dataset, "hr@50"), table.figure(row, dataset, "ndcg@50"))
        for dataset in dict.fromkeys(spec.dataset for spec in specs)
        for row in dict.fromkeys(spec.row for spec in specs)
        for name, table in tables.items()
        if (row, dataset) in table.wanted
    ]


def ablation_grid(variants: Sequence[Variant]) -> Grid:
    """One line per variant, with the difference to the full row."""
    full = {(v.dataset, v.row): v for v in variants if v.name == FULL}
    lines = []
    for v in variants:
        base = full[v.dataset, v.row].ndcg
        change = None if v.ndcg is None or base is None or v.name == FULL else f"{v.ndcg.mean - base.mean:+.2f}"
        lines.append((v.dataset, v.row, v.name, *_cells(v.hr), *_cells(v.ndcg), change))
    headings = ("data set", "row", "variant", "HR@50", "95 %", "NDCG@50", "95 % ", "Δ NDCG@50")
    return Grid(
        headings, tuple(lines), ("Parts are removed, not replaced; all other settings are those of the full row.",)
    )


def _cells(figure: Figure | None) -> tuple[str | None, str | None]:
    if figure is None:
        return None, None
    return format_mean_sd(figure.mean, figure.sd), format_interval(figure.interval.low, figure.interval.high)


def _check(rows: Sequence[str]) -> None:
    fused = [row for row in rows if parse_row(row).fusion in ("mlp", "blfm")]
    refuse_other_rows(rows, fused, "fuse contents with the ID table; use +MLP or +ours rows")


def _more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData], noise: NoiseOptions) -> list[RunSpec]:
    """Return the runs of the figure beside the full rows."""
    modalities = {name: list(prepared.features) for name, prepared in data.items()}
    return [spec for name, runs in all_variants(specs, modalities).items() if name != FULL for spec in runs]


def _finish(finished: FinishedRuns) -> None:
    variants = ablation(finished.store, finished.specs, finished.modalities, finished.fingerprints)
    stem = finished.store.figures / f"figure3-{finished.suffix}"
    grid = warned(ablation_grid(variants), finished.records())
    print_grid(grid, finished.console)
    paths = write_grid(grid, stem)
    for dataset in finished.datasets:
        known = {(v.row, v.name): v.ndcg for v in variants if v.dataset == dataset and v.ndcg is not None}
        rows = [row for row in finished.rows if sum(row == other for other, _ in known) > 1]
        names = dict.fromkeys(name for row, name in known if row in rows)
        if rows:
            series = {name: [_bar(known.get((row, name))) for row in rows] for name in names}
            make_picture = partial(_picture, finished, rows, series, f"{display_name(dataset)}: NDCG@50, %")
            paths += draw(finished, make_picture, stem.with_name(f"{stem.name}-{dataset}"))
    finished.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _bar(figure: Figure | None) -> Bar:
    """Return the mean and the ends of its 95 % interval; not a number, hence no bar, where nothing is stored."""
    if figure is None:
        return math.nan, math.nan, math.nan
    return figure.mean, figure.interval.low, figure.interval.high


def _picture(finished: FinishedRuns, rows: Sequence[str], series: Mapping[str, Sequence[Bar]], label: str) -> Picture:
    return stamped(finished, bars(rows, series, label))


FIGURE3 = RunsOutput(BUILT_IN["figure3"].title, rows_with_routers, _finish, _check, _more)
