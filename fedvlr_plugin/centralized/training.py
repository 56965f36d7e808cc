"""Train a RecBole model: optimiser, learning-rate schedule, validation, patience, best state.

The best state is kept in memory; nothing is written to disk, and no metric is rounded. RecBole's models use the global
random generators: `seeded` seeds them for a run and restores them afterwards.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fedvlr_plugin.centralized.base import CentralizedModel
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.round_record import RoundRecord

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}
DECAY_EPOCHS = 50


class BatchSource(Protocol):
    """Yields the batches of an epoch as RecBole's Interactions."""

    def epoch(self, source: np.random.Generator) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Plan:
    """How long to train and how to choose the best epoch.

    Attributes:
        epochs: at most.
        patience: validations without a gain before training stops; None never stops early.
        eval_every: epochs between validations, at least 1.
        selected_by: key of the validation metric, higher is better.
    """

    epochs: int
    patience: int | None
    eval_every: int = 1
    selected_by: str = "ndcg@50"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch (on `device` too), and restore their states at the end."""
    devices = [device] if device.type == "cuda" else []
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (RecBole's models draw from it)
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def fit(
    model: Any,
    config: Any,
    batches: BatchSource,
    validate: Callable[[], Mapping[str, float]],
    plan: Plan,
    source: np.random.Generator,
    on_epoch: Callable[[RoundRecord], None],
) -> int:
    """Train to the last epoch or until patience is used up, and load the best state into the model.

    Args:
        model: RecBole's model; changed in place.
        config: RecBole's Config.
        batches: of the training pairs.
        validate: returns the validation metrics of the model's present state.
        plan: epochs, patience and selection.
        source: of the random numbers for batches.
        on_epoch: called with the record of each epoch.

    Returns:
        The best epoch, counted from 1: the one with the highest `plan.selected_by`, unrounded; ties keep the first.

    Raises:
        ConfigError: the optimiser is not known.
        FedVLRError: the loss is not finite.
    """
    learner, fixed = make_optimizer(model, config), is_closed_form(model)
    best: BestRound[tuple[Any, Any]] = BestRound(plan.patience)
    epochs = 1 if fixed else plan.epochs
    decay = model.params.lr_decay if isinstance(model, CentralizedModel) else 1.0
    for number in range(1, epochs + 1):
        begin = time.perf_counter()
        for group in learner.param_groups:
            group["lr"] = config["learning_rate"] * decay ** ((number - 1) / DECAY_EPOCHS)
        loss, samples = train_epoch(model, config, batches, None if fixed else learner, source)
        seconds = {"local": time.perf_counter() - begin}
        if not math.isfinite(loss):
            raise FedVLRError(
                f"the training loss of epoch {number} is {loss}; lower learning_rate (now {config['learning_rate']})"
            )
        valid: Mapping[str, float] | None = None
        if number % plan.eval_every == 0 or number == epochs:
            begin = time.perf_counter()
            model.eval()
            valid = validate()
            if best.offer(number, valid[plan.selected_by]):
                best.state = copy.deepcopy((model.state_dict(), model.other_parameter()))
            seconds["evaluation"] = time.perf_counter() - begin
        on_epoch(RoundRecord(number, seconds, loss, valid, samples=samples))
        if best.stop:
            break
    if best.state is not None:
        parameters, others = best.state
        model.load_state_dict(parameters)
        model.load_other_parameter(others)
    model.eval()
    return best.number


def train_epoch(
    model: Any, config: Any, batches: BatchSource, learner: torch.optim.Optimizer | None, source: np.random.Generator
) -> tuple[float, int]:
    """Train for one epoch.

    Args:
        model: RecBole's model; changed in place.
        config: RecBole's Config.
        batches: of the training pairs.
        learner: the optimiser; None only computes the losses.
        source: of the random numbers for batches.

    Returns:
        The mean loss over steps, and the number of entries in all batches.
    """
    model.train()
    losses, samples = [], 0
    for batch in batches.epoch(source):
        parts = model.calculate_loss(batch)
        loss: torch.Tensor = torch.stack(parts).sum() if isinstance(parts, tuple) else parts
        samples += len(batch)
        losses.append(float(loss.detach()))
        if learner is not None:
            learner.zero_grad()
            loss.backward()
            if config["clip_grad_norm"]:
                torch.nn.utils.clip_grad_norm_(model.parameters(), **config["clip_grad_norm"])
            learner.step()
    return float(np.mean(losses)) if losses else 0.0, samples


def is_closed_form(model: Any) -> bool:
    """Return whether the model is one of RecBole's traditional ones (ItemKNN, EASE, Pop, ...), without gradients."""
    return str(model.type) == "ModelType.TRADITIONAL"


def make_optimizer(model: Any, config: Any) -> torch.optim.Optimizer:
    """Create the optimiser from RecBole's keys `learner`, `learning_rate` and `weight_decay`.

    Raises:
        ConfigError: the optimiser is not known, or the learning rate is not a number above 0.
    """
    name = str(config["learner"] or "adam").lower()
    if name not in OPTIMIZERS:
        raise ConfigError(f"learner '{name}' is not known; allowed: {', '.join(OPTIMIZERS)}")
    rate = config["learning_rate"]
    if not isinstance(rate, float | int) or not rate > 0:
        raise ConfigError(f"learning_rate must be a number above 0, got {rate!r}")
    return OPTIMIZERS[name](model.parameters(), lr=float(rate), weight_decay=float(config["weight_decay"] or 0.0))
