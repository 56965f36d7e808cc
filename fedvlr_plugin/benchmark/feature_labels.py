"""Where item features come from, for captions: what a manifest names, random weights above all. Imports `record`."""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.benchmark.record import RunRecord


def feature_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line per data set whose features have a manifest: `Features of ku: vision: open_clip ViT-B-32 (openai).`"""
    found: dict[str, dict[str, str]] = {}
    for record in records:
        for name, source in record.data.sources.items():
            if "unknown" not in source:
                found.setdefault(record.dataset, {})[name] = source
    return [
        f"Features of {dataset}: {'; '.join(f'{name}: {source}' for name, source in sources.items())}."
        for dataset, sources in sorted(found.items())
    ]
