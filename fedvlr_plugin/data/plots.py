"""One PNG about a data set: activity, popularity, cold shares, modality coverage.

Imports `statistics`; matplotlib when called (extra `report`).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.statistics import activity_of, statistics
from fedvlr_plugin.errors import missing_extra
from fedvlr_plugin.files import write_data_file


def save_overview(data: PreparedData, path: Path) -> None:
    """Writes the picture; raises `MissingExtraError` without matplotlib, `DataError` where it cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report", "The picture of a data set") from None
    found = statistics(data)
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (activity, popularity), (cold, coverage) = figure.subplots(2, 2)
    sizes = activity_of(data)
    bins = np.unique(np.geomspace(max(1, sizes.min()), sizes.max() + 1, 30).astype(int))
    activity.hist(sizes, bins=bins.tolist() if len(bins) > 1 else 10, color="#4472a8")
    activity.set(xscale="log", xlabel="interactions", ylabel="users", title="Activity of users")
    counts = np.sort(data.interactions.train_counts)[::-1]
    popularity.plot(np.arange(1, len(counts) + 1), counts, color="#4472a8")
    popularity.set(
        xscale="log", yscale="symlog", xlabel="rank of the item", ylabel="training users", title="Popularity of items"
    )
    popularity.set_ylim(bottom=0)
    parts = (
        ("items", found.cold_items, found.items),
        ("validation\npositives", found.cold_valid, found.valid_positives),
        ("test\npositives", found.cold_test, found.test_positives),
    )
    bars = cold.bar([p[0] for p in parts], [100 * p[1] / max(1, p[2]) for p in parts], color="#b5543c")
    cold.bar_label(bars, labels=[f"{p[1]:,} of {p[2]:,}" for p in parts])
    cold.set(ylabel="percent", title="Cold: never seen in training", ylim=(0, 110))
    names = list(found.coverage)
    bars = coverage.bar(names or ["none"], [100 * found.coverage[n] for n in names] or [0], color="#5a8f4e")
    coverage.bar_label(bars, labels=[f"{found.widths[n]} columns" for n in names] or [""])
    coverage.set(ylabel="percent of the items", title="Modalities: rows of their own", ylim=(0, 110))
    figure.suptitle(
        f"{found.name}: {found.users:,} users, {found.items:,} items, {found.interactions:,} interactions, "
        f"{found.sparsity:.2f} % sparse"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_data_file(path, buffer.getvalue())
