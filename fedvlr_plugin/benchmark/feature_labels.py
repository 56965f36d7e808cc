"""Where item features come from, for captions: what a manifest names, random weights above all. Imports `record`, `grids`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.experiment.record import RunRecord

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
