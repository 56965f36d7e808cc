"""Compute the statistics of a data set, and compare them with the paper's Table 1.

Distinct pairs are counted, after the filter. Source: algorithm.md sections 6 and 7 (cold items and positives).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.paper.tables import published

DECILES = (0, 10, 50, 90, 100)


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper's Table 1; sparsity in percent."""

    name: str
    users: int
    items: int
    interactions: int
    sparsity: float


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of a data set.

    Attributes:
        name: of the data set.
        users: number of users.
        items: number of items.
        interactions: number of distinct pairs over all three parts.
        duplicates: number of repeated pairs, which were dropped.
        cold_items: items without a training interaction.
        valid_positives: number of validation items.
        test_positives: number of test items.
        cold_valid: number of validation items that are cold.
        cold_test: number of test items that are cold.
        activity: interactions of a user at the percentiles `DECILES`.
        popularity: training users of an item at the percentiles `DECILES`.
        top_share: share of the training pairs that the most active tenth of the users holds, 0..1.
        coverage: share of the items with a vector of their own, 0..1, by modality.
        widths: width by modality.
    """

    name: str
    users: int
    items: int
    interactions: int
    duplicates: int
    cold_items: int
    valid_positives: int
    test_positives: int
    cold_valid: int
    cold_test: int
    activity: tuple[float, ...]
    popularity: tuple[float, ...]
    top_share: float
    coverage: Mapping[str, float]
    widths: Mapping[str, int]

    @property
    def density(self) -> float:
        """Interactions divided by users times items, 0..1."""
        return self.interactions / (self.users * self.items)

    @property
    def sparsity(self) -> float:
        """Percent of the user-item pairs without an interaction, as Table 1 gives it."""
        return 100.0 * (1.0 - self.density)


def statistics(data: PreparedData) -> DataStatistics:
    """Compute the statistics of a data set, without a copy of the data."""
    inter = data.interactions
    valid, test = inter.valid[inter.valid >= 0], inter.test[inter.test >= 0]
    sizes = activity_of(data)
    train = np.sort(inter.train_sizes)[::-1]
    head = max(1, round(len(train) / 10))
    return DataStatistics(
        name=data.name,
        users=inter.n_users,
        items=inter.n_items,
        interactions=inter.n_interactions,
        duplicates=int(data.facts.get("duplicate_rows", 0)),
        cold_items=int(inter.cold_items.sum()),
        valid_positives=len(valid),
        test_positives=len(test),
        cold_valid=int(inter.cold_items[valid].sum()),
        cold_test=int(inter.cold_items[test].sum()),
        activity=tuple(float(v) for v in np.percentile(sizes, DECILES)),
        popularity=tuple(float(v) for v in np.percentile(inter.train_counts, DECILES)),
        top_share=float(train[:head].sum() / max(1, train.sum())),
        coverage={name: modality.coverage for name, modality in data.features.items()},
        widths={name: modality.dim for name, modality in data.features.items()},
    )


def activity_of(data: PreparedData) -> IntArray:
    """Count the distinct interactions of each user over all three parts, `[n_users]`."""
    inter = data.interactions
    sizes: IntArray = inter.train_sizes + (inter.valid >= 0) + (inter.test >= 0)
    return sizes


@functools.cache
def table1() -> Mapping[str, PublishedRow]:
    """Return the rows of the paper's Table 1 by lower-case name."""
    rows = {}
    for line in published(1):
        sizes = (int(line["users"]), int(line["items"]), int(line["ratings"]))
        rows[line["dataset"].lower()] = PublishedRow(line["dataset"], *sizes, float(line["sparsity_percent"]))
    return rows


def differences(found: DataStatistics, name: str | None = None) -> list[str]:
    """List the differences from Table 1, one line for each figure; empty if all agree or Table 1 has no such row.

    Args:
        found: the statistics.
        name: of the row; None for the name of the data set.
    """
    paper = table1().get((name or found.name).lower())
    if paper is None:
        return []
    out = []
    for what, ours, published_value in (
        ("users", found.users, paper.users),
        ("items", found.items, paper.items),
        ("interactions", found.interactions, paper.interactions),
    ):
        if ours != published_value:
            note = ""
            if what == "interactions" and found.duplicates:
                rows = ours + found.duplicates
                note = f" distinct pairs in {rows:,} rows, {found.duplicates} of which repeat a pair"
            out.append(f"{what}: Table 1 has {published_value:,}, here {ours:,}{note} ({ours - published_value:+,})")
    if round(found.sparsity, 2) != paper.sparsity:
        out.append(f"sparsity: Table 1 has {paper.sparsity:.2f} %, here {found.sparsity:.2f} %")
    return out


def comparison_table(found: list[DataStatistics]) -> str:
    """Format statistics next to those of the paper as plain text; `=` marks a row that equals Table 1."""
    lines = []
    for one in found:
        paper = table1().get(one.name.lower())
        same = "" if paper is None else ("=" if not differences(one) else "differs")
        lines.append(
            [
                one.name,
                f"{one.users:,}",
                f"{one.items:,}",
                f"{one.interactions:,}",
                f"{one.sparsity:.2f}",
                "-"
                if paper is None
                else f"{paper.users:,} / {paper.items:,} / {paper.interactions:,} / {paper.sparsity:.2f}",
                same,
                share(one.cold_valid, one.valid_positives),
                share(one.cold_test, one.test_positives),
                ", ".join(f"{name} {one.widths[name]}" for name in one.widths) or "none",
            ]
        )
    headers = [
        "data set",
        "users",
        "items",
        "pairs",
        "sparsity %",
        "Table 1",
        "",
        "cold valid",
        "cold test",
        "modalities",
    ]
    return tabulate(lines, headers=headers, disable_numparse=True)


def share(part: int, whole: int) -> str:
    """Format a share, e.g. `"88 of 204 (43.1 %)"`."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)" if whole else "none"


def description(found: DataStatistics) -> str:
    """Format all statistics of one data set as lines of text."""
    marks = " / ".join(("least", "10 %", "median", "90 %", "most"))
    lines = [
        comparison_table([found]),
        "",
        *(f"differs from Table 1: {line}" for line in differences(found)),
        f"interactions per user ({marks}): {' / '.join(f'{v:g}' for v in found.activity)}",
        f"training users per item ({marks}): {' / '.join(f'{v:g}' for v in found.popularity)}",
        f"the most active tenth of the users holds {100 * found.top_share:.1f} % of the training pairs",
        f"cold items (none in training): {share(found.cold_items, found.items)}",
    ]
    for name, part in found.coverage.items():
        lines.append(
            f"modality {name}: {found.widths[name]} columns, {100 * part:.1f} % of the items have a row of their own"
        )
    return "\n".join(lines)
