"""Compare the four models with a seed study of their reference implementations on KU (`baselines.md` section 8.1).

Settings of this comparison: training pairs with duplicates, one negative for each positive from the items that occur in
training, only training items masked at test, the best epoch by validation Recall@50 (= HR@50), at most 1000 epochs,
stopped at the 21st epoch without a gain. Hyper-parameters are those of the shipped YAML files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedvlr_plugin.centralized.model_registry import OURS, find_model
from fedvlr_plugin.centralized.trainable import Trainable
from fedvlr_plugin.centralized.training import Plan, seeded
from fedvlr_plugin.config import Protocol
from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.recbole.loader import open_dataset, prepare
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.round_record import RoundRecord

PROTOCOL = Protocol(negatives=1, negative_pool="train_items", mask_validation_at_test=False)
PLAN = Plan(epochs=1000, patience=21, selected_by="hr@50")
ALLOWED_SD = 2.5


@dataclass(frozen=True)
class Study:
    """Expected test metrics of a model, in percent.

    Attributes:
        hr: mean HR@50 over seeds.
        hr_sd: its standard deviation.
        ndcg: mean NDCG@50 over seeds.
        ndcg_sd: its standard deviation.
    """

    hr: float
    hr_sd: float
    ndcg: float
    ndcg_sd: float


EXPECTED = {
    "VBPR": Study(46.2, 1.9, 18.3, 1.1),
    "BM3": Study(42.3, 1.2, 16.0, 1.4),
    "MGCN": Study(39.7, 4.3, 16.1, 2.0),
    "PGL": Study(44.6, 1.3, 14.9, 1.3),
}


@dataclass(frozen=True)
class Outcome:
    """Measured results of a model.

    Attributes:
        model: name.
        hr: test HR@50 in percent by seed.
        ndcg: test NDCG@50 in percent by seed.
        epochs: epochs run by seed.
    """

    model: str
    hr: tuple[float, ...]
    ndcg: tuple[float, ...]
    epochs: tuple[int, ...]

    @property
    def deviation(self) -> float:
        """Difference of mean HR@50, measured - expected, in expected standard deviations."""
        expected = EXPECTED[self.model]
        return (float(np.mean(self.hr)) - expected.hr) / expected.hr_sd

    @property
    def agrees(self) -> bool:
        """Whether the difference is at most `ALLOWED_SD` standard deviations."""
        return abs(self.deviation) <= ALLOWED_SD


def load(data_root: Path | None) -> tuple[PreparedData, tuple[IntArray, IntArray]]:
    """Read KU and its training pairs.

    Args:
        data_root: folder of the data sets; None for the default.

    Returns:
        The data set; users and items of its training pairs with duplicates, ids from 0, both `[n]`.

    Raises:
        DataError: the order of the items depends on the duplicates.
    """
    data = prepare("ku", data_root)
    dataset = open_dataset("ku", data_root, config_dict={"keep_duplicates": True})
    if dataset.item_tokens != data.interactions.item_tokens:
        raise DataError("ku: items are in another order with duplicates kept than without; nothing can be compared")
    rows = dataset.build()[0].inter_feat
    users, items = (np.asarray(rows[field]).astype(np.int64) - 1 for field in (dataset.uid_field, dataset.iid_field))
    return data, (users, items)


def compare(model: str, data: PreparedData, rows: tuple[IntArray, IntArray], seeds: int) -> Outcome:
    """Train and evaluate one model with several seeds.

    Args:
        model: name.
        data: the prepared data set.
        rows: users and items of the training pairs, ids from 0, both `[n]`.
        seeds: how many, from 0.
    """
    results: list[tuple[float, float, int]] = []
    for seed in range(seeds):
        epochs: list[RoundRecord] = []
        with seeded(seed, torch.device("cpu")):
            trained = Trainable(find_model(model), data, PROTOCOL, {}, rows=rows)
            trained.fit(PLAN, np.random.default_rng(seed), epochs.append)
            test = summary(trained.rank("test"))
        results.append((test["hr@50"], test["ndcg@50"], epochs[-1].round))
    hr, ndcg, lengths = zip(*results, strict=True)
    return Outcome(model, hr, ndcg, lengths)


def line(outcome: Outcome) -> str:
    """Format measured and expected values of a model, one line under `HEADER`."""
    expected = EXPECTED[outcome.model]
    sd = np.std(outcome.hr, ddof=1), np.std(outcome.ndcg, ddof=1)
    return (
        f"{outcome.model:<6}{np.mean(outcome.hr):>7.2f} ±{sd[0]:5.2f}{expected.hr:>8.1f} ±{expected.hr_sd:4.1f}"
        f"{outcome.deviation:>+8.2f} sd  {np.mean(outcome.ndcg):>6.2f} ±{sd[1]:5.2f}{expected.ndcg:>8.1f} ±{expected.ndcg_sd:4.1f}"
        f"  {min(outcome.epochs):>4}-{max(outcome.epochs):<4}  {'ok' if outcome.agrees else 'OUT'}"
    )


HEADER = "model   HR@50 measured    expected   distance  NDCG@50 measured  expected     epochs  verdict"
MODELS = tuple(OURS)
