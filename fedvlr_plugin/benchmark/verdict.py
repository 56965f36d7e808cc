"""One word per cell of the paper: reproduced, higher, lower, not comparable (and why), or not run.

`reproduced` means that the paper's figure lies inside our 95 % interval; `higher` and `lower` say where ours lies.
Not comparable are the paper's failed runs, figures that its number of users cannot give, data that differ from its
Table 1, and rows with item features where ours are not CLIP's 512 (algorithm.md section 8): other widths, random
weights, or another encoder by the label in their manifest. Imports `paper`, `rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedvlr_plugin.benchmark.paper import Metric, display_name, paper_failed, paper_value, published
from fedvlr_plugin.benchmark.record import DataPart
from fedvlr_plugin.evaluation.bootstrap import Interval

Word = Literal["reproduced", "higher", "lower", "not comparable", "not run"]
CLIP_WIDTH = 512
# Parts of the labels that features carry (features.encoder, data.released): what no manifest names may be CLIP's.
RANDOM, UNKNOWN, CLIP = "RANDOM WEIGHTS", "unknown", "clip"
ID_ONLY = ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP")


@dataclass(frozen=True)
class Verdict:
    """The word, and the reason where it needs one."""

    word: Word
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


def judge(
    row: str, dataset: str, metric: Metric, mean: float | None, interval: Interval | None, data: DataPart | None
) -> Verdict | None:
    """The verdict on one figure of the paper; None where Table 2 has no such cell.

    Args:
        mean, interval, data: of our runs, in percent; all None if there are none.
    """
    if paper_failed(row, dataset):
        return Verdict("not comparable", "the paper's run failed")
    value = paper_value(row, dataset, metric)
    if value is None:
        return None
    return judge_value(value, row, metric, mean, interval, data)


def judge_value(
    value: float, row: str, metric: Metric, mean: float | None, interval: Interval | None, data: DataPart | None
) -> Verdict:
    """The verdict on a figure of the paper that another table of it has."""
    if mean is None or interval is None or data is None:
        return Verdict("not run")
    why = _impossible(value, metric, data) or _other_data(data) or _other_features(row, data)
    if why:
        return Verdict("not comparable", why)
    if value in interval:
        return Verdict("reproduced")
    return Verdict("higher" if mean > value else "lower")


def _impossible(value: float, metric: Metric, data: DataPart) -> str:
    """A hit rate is a whole number of users over all users, so its second decimal is not free."""
    if metric != "hr@50":
        return ""
    hits = round(value / 100 * data.users)
    if abs(100 * hits / data.users - value) <= 0.0051:
        return ""
    return f"{value:.2f} % is no whole number of {data.users} users"


def _other_data(data: DataPart) -> str:
    for line in published(1):
        if line["dataset"] == display_name(data.name):
            users, items = int(line["users"]), int(line["items"])
            if (users, items) != (data.users, data.items):
                return f"{data.users} users and {data.items} items, the paper's data have {users} and {items}"
    return ""


def _other_features(row: str, data: DataPart) -> str:
    if row in ID_ONLY:
        return ""
    for name, source in data.sources.items():
        if source.startswith(RANDOM):
            return f"{name} features made with random weights"
        if UNKNOWN not in source and CLIP not in source.casefold():
            return f"{name} features of {source}, the paper's are CLIP's"
    if sorted(data.modalities.values()) == [CLIP_WIDTH, CLIP_WIDTH]:
        return ""
    widths = ", ".join(f"{name} {width}" for name, width in data.modalities.items()) or "none"
    return f"item features other than CLIP's image and text ({widths})"
