"""What a caption says beside the numbers: noise and its epsilon, faults, where item features come from, budgets, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.evaluation.seed_and_user_test import MIN_SEEDS
from fedvlr_plugin.experiment.controls import is_control
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import CLOSED_FORMS
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, format_epsilon
from fedvlr_plugin.reporting.comparisons import unfinished
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Table, left_out


def epsilon_label(records: Sequence[RunRecord]) -> str:
    """` (ε = 8)` for a cell whose runs were noisy, nothing for one without noise."""
    found = dict.fromkeys(format_epsilon(record.privacy) for record in records if record.privacy is not None)
    return f" (ε = {' / '.join(found)})" if found else ""


def noise_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line for a caption per mechanism that some of the runs used; none where all ran without noise."""
    return list(dict.fromkeys(format_guarantee(record.privacy) for record in records if record.privacy is not None))


def format_guarantee(found: PrivacyGuarantee) -> str:
    """`Noise: gaussian, ε = 8 at δ = 0.00049 (add or remove one user), z = 3.876, C = 0.5, 60 rounds, q = 1.`"""
    if found.mechanism == "paper_noise":
        return (
            f"Noise: paper_noise, ε = ∞ (standard deviation {found.noise_scale:g} on gradients that are not clipped)."
        )
    promised = f"ε = {format_epsilon(found)}"
    if found.delta is not None:
        promised += f" at δ = {found.delta:.2g} ({found.adjacency})"
    bound = f"C at the {found.adaptive_quantile:g} quantile" if found.clip is None else f"C = {found.clip:g}"
    return (
        f"Noise: {found.mechanism}, {promised}, z = {found.noise_multiplier:.4g}, {bound}, {found.rounds} rounds, "
        f"q = {found.sampling:g}."
    )


def fault_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line for a caption per kind of faults that some of the runs met."""
    found = dict.fromkeys(
        record.spec.conditions.faults for record in records if record.spec.conditions.faults is not None
    )
    return [
        f"Faults: each round {f.dropout:.0%} of the cohort dropped out, {f.stragglers:.0%} of the rest answered too late."
        for f in found
    ]


PLANTED = "planted"


def feature_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line per data set whose features have a manifest: `Features of ku: vision: open_clip ViT-B-32 (openai).`"""
    found: dict[str, dict[str, str]] = {}
    for record in records:
        for name, source in record.data.sources.items():
            if "unknown" not in source:
                found.setdefault(record.dataset, {})[name] = source
    lines = [
        f"Features of {dataset}: {'; '.join(f'{name}: {source}' for name, source in sources.items())}."
        for dataset, sources in sorted(found.items())
    ]
    if any(record.dataset == PLANTED for record in records):
        lines.append(
            f"{PLANTED} is made up: tastes are drawn from the item features, so fusion must win there. It checks the "
            "installation and says nothing about the method."
        )
    return lines


def random_lines(records: Sequence[RunRecord]) -> list[str]:
    """Those of the lines that a result may never be without: of data sets with features of random weights."""
    return [line for line in feature_lines(records) if "RANDOM WEIGHTS" in line]


def warned(grid: Grid, records: Sequence[RunRecord]) -> Grid:
    """The grid with `random_lines` among its notes."""
    return replace(grid, notes=(*grid.notes, *random_lines(records)))


def caption(table: Table) -> list[str]:
    """What a reader must know about the numbers, one statement per line, all of it from the records."""
    records = [record for cell in table.cells.values() for record in cell.records]
    if not records:
        return ["No runs are stored."]
    trained = [r for r in records if r.rounds > 0 and r.row not in CLOSED_FORMS]
    protocols = sorted({_protocol(r.spec) for r in records})
    lines = [
        "HR@50 and NDCG@50 on the test split in percent, all items ranked, ties averaged: mean ± standard deviation "
        "over seeds, and the 95 % bootstrap interval over users. Δ is this run less the paper's figure, ≠ where "
        "the two are not comparable. Bold: the best federated row.",
        f"Protocol: {'; '.join(protocols)}.",
    ]
    if trained:
        cells = [cell for cell in table.cells.values() if cell.records[0] in trained]
        seeds = sorted({len(cell.records) for cell in cells})
        rounds = [r.spec.training.rounds for r in trained]
        run = [r.rounds for r in trained]
        lines.append(
            f"Profile: {table.profile or 'not given'}. Seeds per cell: {_span(seeds)}. Rounds or epochs: at most "
            f"{_span(rounds)}, run {_span(run)}; stopped and selected by validation NDCG@50."
        )
        lines += _unfinished(table)
    lines += [*feature_lines(records), *noise_lines(records), *fault_lines(records)]
    if table.pairs:
        lines.append(
            "▲ better, ▼ worse than the vanilla row; † better, ▽ worse than +MLP: significant at 5 % over seeds and users "
            "(two-way random effects) and over users (randomization), each corrected by Holm for the "
            f"{_families(table)}; only for finished rows of at least {MIN_SEEDS} seeds. In brackets: these trained models "
            "differ over users, but their seeds or rounds are too few for a verdict, or other seeds may differ."
        )
    lines += [*closed_form_lines(table), *control_lines(table)]
    missing = sum(n - len(table.cells[c].records) if c in table.cells else n for c, n in table.wanted.items())
    lines += left_out(table.other_versions)
    if missing:
        lines.append(f"{missing} of {sum(table.wanted.values())} runs are not stored yet.")
    return lines


def closed_form_lines(table: Table) -> list[str]:
    """What the rows without training chose for themselves by validation, one line; none where no row did."""
    found = [
        f"{display_name(dataset)} {row} {_numbers(cell.records[0].chosen)}"
        for (row, dataset), cell in table.cells.items()
        if row in CLOSED_FORMS and cell.records[0].chosen
    ]
    if not found:
        return []
    return [
        "Closed forms have one run and choose their own numbers by validation NDCG@50 (points: how many were tried): "
        f"{'; '.join(found)}."
    ]


def _numbers(chosen: Mapping[str, float]) -> str:
    """`lam 100, points 17`."""
    return ", ".join(f"{name} {value:g}" for name, value in chosen.items())


def control_lines(table: Table) -> list[str]:
    """What a shuffled line of the table is, and which rows differ from theirs; none without controls."""
    if not any(is_control(row) for row in table.rows):
        return []
    better = [
        f"{display_name(pair.dataset)} {pair.row} ({pair.metric.upper()} {pair.comparison.difference:+.2f})"
        for pair in table.control_pairs
        if pair.better
    ]
    return [
        "[shuffled]: the row above with the same settings, each item with the features of another one (a permutation "
        "per seed). Only a row that beats it significantly (5 %, over seeds and users and over users, Holm over the "
        f"controls of a data set) gains by content: {', '.join(better) or 'none does'}."
    ]


def _unfinished(table: Table) -> list[str]:
    """Name the rows that more rounds might have changed."""
    found = []
    for dataset in table.datasets:
        there = [row for row in table.rows if (row, dataset) in table.cells]
        rows = [row for row in there if unfinished(table.cells[row, dataset].records)]
        if rows:
            found.append(f"{display_name(dataset)}: {', '.join(rows)}")
    if not found:
        return []
    return [
        "Best at the very end of their rounds, so not finished (the best round among the last twentieth in most seeds): "
        f"{'; '.join(found)}."
    ]


def _families(table: Table) -> str:
    """`32 comparisons`, or on several data sets `comparisons on each data set (32, 12)`."""
    sizes = [sum(pair.dataset == dataset for pair in table.pairs) for dataset in table.datasets]
    sizes = [size for size in sizes if size]
    if len(sizes) == 1:
        return f"{sizes[0]} comparisons"
    return f"comparisons on each data set ({', '.join(map(str, sizes))})"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _protocol(spec: RunSpec) -> str:
    p = spec.protocol
    pool = "all items" if p.negative_pool == "all_items" else "items that occur in training"
    masked = "training and validation" if p.mask_validation_at_test else "training"
    kept = "kept" if p.keep_private_state else "lost every round"
    return (
        f"{p.name} ({p.negatives} negative{'s' if p.negatives > 1 else ''} per positive from {pool}; {masked} items "
        f"masked at test; private state {kept})"
    )
