"""Measure the seconds of an epoch of the centralized models, and compare them with MMRec on KU (`baselines.md` section 6)."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

import numpy as np
import torch

from fedvlr_plugin.centralized.model_registry import find_model
from fedvlr_plugin.centralized.trainable import Trainable
from fedvlr_plugin.centralized.training import Plan, seeded
from fedvlr_plugin.config import Protocol
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.round_record import RoundRecord

MMREC_ON_KU = {
    "VBPR": (".04-.12", ".05-.15"),
    "BM3": (".05-.2", ".04-.18"),
    "MGCN": (".31-.6", ".08-.14"),
    "PGL": (".30-.70", ".06-.12"),
}
EVALUATION_LIMIT = 0.5
HEADER = (
    f"{'data':<8}{'model':<7}{'train s/epoch':>14}{'eval s':>9}   MMRec, 1 thread: train, eval   "
    f"({torch.get_num_threads()} threads, {os.cpu_count()} cores)"
)


@dataclass(frozen=True)
class Timing:
    """Median seconds of an epoch.

    Attributes:
        dataset: name.
        model: name.
        training: seconds of training.
        evaluation: seconds of validation.
    """

    dataset: str
    model: str
    training: float
    evaluation: float


def measure(model: str, data: PreparedData, epochs: int) -> Timing:
    """Train `epochs` + 1 epochs, the first of which is not counted.

    Args:
        model: name.
        data: the prepared data set.
        epochs: to measure, at least 1.

    Raises:
        ConfigError: `epochs` is below 1.
    """
    if epochs < 1:
        raise ConfigError(f"epochs must be at least 1, got {epochs}")
    epoch_records: list[RoundRecord] = []
    with seeded(0, torch.device("cpu")):
        trained = Trainable(find_model(model), data, Protocol(), {})
        trained.fit(Plan(epochs + 1, None), np.random.default_rng(0), epoch_records.append)
    timed = epoch_records[1:]
    parts = [statistics.median(epoch.seconds[part] for epoch in timed) for part in ("local", "evaluation")]
    return Timing(data.name, model, *parts)


def line(timing: Timing) -> str:
    """Format one line of the table."""
    published = ", ".join(MMREC_ON_KU[timing.model]) if timing.dataset == "ku" else "not measured"
    return f"{timing.dataset:<8}{timing.model:<7}{timing.training:>14.3f}{timing.evaluation:>9.3f}   {published}"
