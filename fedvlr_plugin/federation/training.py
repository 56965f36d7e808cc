"""Training to the end: rounds, validation, the best round kept, early stopping.

The best round is the one with the highest validation NDCG@50, compared unrounded and strictly; its parameters,
shared and private, are what the test is read with, once (algorithm.md section 6). This module never sees a test
item: it is given a function that validates. Imports `simulation` only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.federation.contract import Uplink
from fedvlr_plugin.federation.simulation import Best, Federation

Validate = Callable[[], Mapping[str, float]]
SELECTED_BY = "ndcg@50"


class DivergedError(FedVLRError):
    """Training left the finite numbers."""


@dataclass(frozen=True)
class RoundReport:
    """One finished round: its uplink's accounts and, when validated, the metrics."""

    round: int
    uplink: Uplink
    seconds: Mapping[str, float]
    valid: Mapping[str, float] | None


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


def fit(federation: Federation, validate: Validate, on_round: Callable[[RoundReport], None] | None = None) -> Fitted:
    """Runs rounds until the last one or until patience is used up, then puts the best round back.

    The last round is always validated. Raises `DivergedError` when the loss is no longer finite.
    """
    training = federation.spec.training
    best: Best | None = None
    best_score, best_round, waited = -math.inf, 0, 0
    reports: list[RoundReport] = []
    for number in range(1, training.rounds + 1):
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
            if valid[SELECTED_BY] > best_score:
                best_score, best_round, waited = valid[SELECTED_BY], number, 0
                best = federation.snapshot()
            else:
                waited += 1
            seconds["evaluation"] = time.perf_counter() - begin
        uplink.sums.clear()
        report = RoundReport(number, uplink, seconds, valid)
        reports.append(report)
        if on_round is not None:
            on_round(report)
        if training.patience is not None and waited >= training.patience:
            break
    if best is None:
        raise FedVLRError("no round was validated; the data set has no validation items or NDCG is not a number")
    federation.restore(best)
    return Fitted(best_round, tuple(reports))
