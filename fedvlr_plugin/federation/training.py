"""Training to the end: rounds, validation, the best round kept, early stopping.

The best round is the one with the highest validation NDCG@50, compared unrounded and strictly; its parameters,
shared and private, are what the test is read with, once (algorithm.md section 6). This module never sees a test
item: it is given a function that validates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.federation.checkpoint import Checkpoints, Progress, RoundReport
from fedvlr_plugin.federation.simulation import Federation

__all__ = ["DivergedError", "Fitted", "RoundReport", "fit"]

Validate = Callable[[], Mapping[str, float]]
SELECTED_BY = "ndcg@50"


class DivergedError(FedVLRError):
    """Training left the finite numbers."""


@dataclass(frozen=True)
class Fitted:
    """What training came to; the federation holds the best round's parameters."""

    best_round: int
    reports: tuple[RoundReport, ...]

    @property
    def client_updates(self) -> int:
        """Clients that trained, summed over rounds."""
        return sum(report.uplink.clients for report in self.reports)

    @property
    def samples(self) -> int:
        """Samples seen, summed over rounds and local epochs."""
        return sum(report.uplink.samples for report in self.reports)


def fit(
    federation: Federation,
    validate: Validate,
    on_round: Callable[[RoundReport], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Runs rounds until the last one or until patience is used up, then puts the best round back.

    The last round is always validated. With `checkpoints` training goes on where a stored one stands, and rounds that
    were done before are reported again. Raises `DivergedError` when the loss is no longer finite.
    """
    training = federation.spec.training
    state = Progress() if checkpoints is None else checkpoints.load(federation)
    if on_round is not None:
        for report in state.reports:
            on_round(report)
    while state.done < training.rounds and not _used_up(state, training.patience):
        report = _one_round(federation, validate, state)
        if on_round is not None:
            on_round(report)
        if checkpoints is not None and state.done % checkpoints.every == 0:
            checkpoints.save(federation, state)
    if state.best is None:
        raise FedVLRError("no round was validated; the data set has no validation items or NDCG is not a number")
    federation.restore(state.best)
    return Fitted(state.best_round, tuple(state.reports))


def _used_up(state: Progress, patience: int | None) -> bool:
    return patience is not None and state.waited >= patience


def _one_round(federation: Federation, validate: Validate, state: Progress) -> RoundReport:
    """The next round, validated where it is due; moves `state` on."""
    training = federation.spec.training
    number = state.done + 1
    uplink = federation.round(number)
    if not math.isfinite(uplink.loss):
        raise DivergedError(
            f"the training loss of round {number} is {uplink.loss}; lower client_lr ({training.client_lr}), "
            f"server_lr ({training.server_lr}) or server_lr_id ({training.server_lr_id})"
        )
    valid: Mapping[str, float] | None = None
    seconds = dict(uplink.seconds)
    if number % training.eval_every == 0 or number == training.rounds:
        begin = time.perf_counter()
        valid = validate()
        if state.best_score is None or valid[SELECTED_BY] > state.best_score:
            state.best_score, state.best_round, state.waited = valid[SELECTED_BY], number, 0
            state.best = federation.snapshot()
        else:
            state.waited += 1
        seconds["evaluation"] = time.perf_counter() - begin
    uplink.sums.clear()
    report = RoundReport(number, uplink, seconds, valid)
    state.reports.append(report)
    state.done = number
    return report
