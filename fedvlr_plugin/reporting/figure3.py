"""Figure 3: every backbone with a content modality or the ID table left out: really removed, not replaced by noise.

The other settings are those of the full run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import FULL, all_variants
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Figure, build_table


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
        lines.append((v.dataset, v.row, v.name, *_spelled(v.hr), *_spelled(v.ndcg), change))
    headings = ("data set", "row", "variant", "HR@50", "95 %", "NDCG@50", "95 % ", "Δ NDCG@50")
    return Grid(
        headings, tuple(lines), ("Parts are removed, not replaced; all other settings are those of the full row.",)
    )


def _spelled(figure: Figure | None) -> tuple[str | None, str | None]:
    if figure is None:
        return None, None
    mean = f"{figure.mean:.2f}" if figure.sd is None else f"{figure.mean:.2f} ± {figure.sd:.2f}"
    return mean, f"{figure.interval.low:.2f}..{figure.interval.high:.2f}"
