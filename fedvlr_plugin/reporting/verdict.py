"""One word per cell of the paper: reproduced, higher, lower, not enough runs, not comparable (and why), or not run.

`reproduced` means that the paper's figure lies inside our 95 % interval over seeds and users; `higher` and `lower` say
where ours lies. `not enough runs` stands for rows with fewer than five seeds, or that were not finished.
Not comparable are the paper's failed runs, figures that its number of users cannot give, data that differ from its
Table 1, and rows with item features that are not the paper's (algorithm.md section 8). Only two things prove that they
are: the hash of what the authors released (KU), or a manifest beside each file that names open_clip's ViT-B-32 with
OpenAI's own weights. Files of unknown origin prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.data.released_layout import PAPERS_OWN
from fedvlr_plugin.evaluation.significance import Interval
from fedvlr_plugin.experiment.record import DataPart
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.paper.tables import Metric, display_name, paper_failed, paper_value, published

Word = Literal["reproduced", "higher", "lower", "not enough runs", "not comparable", "not run"]
RELEASED_FEATURES = {
    "2374ee321cfe2c76436bc61f79d23c96a48b3acc0ea2b01f69de576e19f63c87": "KU as the authors released it"
}
"""`PreparedData.fingerprint` of data with the paper's own features, for records from before features were labelled."""
PAPERS_ENCODER = "open_clip ViT-B-32 (openai)"  # as `features.encoder.Encoder.label` writes it
PAPERS_MODALITIES = ("text", "vision")


@dataclass(frozen=True)
class Verdict:
    """The word, and the reason where it needs one."""

    word: Word
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


def judge(
    row: str,
    dataset: str,
    metric: Metric,
    mean: float | None,
    interval: Interval | None,
    data: DataPart | None,
    shortage: str = "",
) -> Verdict | None:
    """The verdict on one figure of the paper; None where Table 2 has no such cell.

    Args:
        mean, interval, data: of our runs, in percent, the interval over seeds and users; all None if there are none.
        shortage: why the runs are not enough for a verdict; empty if they are.
    """
    if paper_failed(row, dataset):
        return Verdict("not comparable", "the paper's run failed")
    value = paper_value(row, dataset, metric)
    if value is None:
        return None
    return judge_value(value, row, metric, mean, interval, data, shortage)


def judge_value(
    value: float,
    row: str,
    metric: Metric,
    mean: float | None,
    interval: Interval | None,
    data: DataPart | None,
    shortage: str = "",
) -> Verdict:
    """The verdict on a figure of the paper that another table of it has."""
    if mean is None or interval is None or data is None:
        return Verdict("not run")
    why = _impossible(value, metric, data) or _other_data(data) or _other_features(row, data)
    if why:
        return Verdict("not comparable", why)
    if shortage:
        return Verdict("not enough runs", shortage)
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


def _id_only(row: str) -> bool:
    """Whether the row's results do not depend on item features."""
    parsed = parse_row(row)
    return parsed.backbone is not None and parsed.fusion == "none" and BACKBONES.get(parsed.backbone).id_only


def _other_features(row: str, data: DataPart) -> str:
    if _id_only(row) or data.fingerprint in RELEASED_FEATURES:
        return ""
    if tuple(sorted(data.modalities)) != PAPERS_MODALITIES:
        return f"item features other than CLIP's image and text ({', '.join(data.modalities) or 'none'})"
    for name, width in data.modalities.items():
        source = data.sources.get(name, "unknown origin")
        if source not in (PAPERS_ENCODER, PAPERS_OWN):
            return f"{name} features (width {width}) of {source}; the paper's are of {PAPERS_ENCODER}"
    return ""
