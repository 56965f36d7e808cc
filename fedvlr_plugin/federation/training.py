"""Training to the end: rounds, validation, the best round kept, early stopping.

The parameters of the best round (`BestRound`), shared and private, are what the test is read with, once (algorithm.md
section 6). This module never sees a test item: it is given a function that validates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.federation.checkpoint import Checkpoints, Progress
from fedvlr_plugin.federation.simulation import Federation

__all__ = ["SELECTED_BY", "DivergedError", "Fitted", "fit"]

Validate = Callable[[], Mapping[str, float]]
SELECTED_BY = "ndcg@50"


class DivergedError(FedVLRError):
    """Training left the finite numbers."""


@dataclass(frozen=True)
class Fitted:
    """The outcome of training; the federation holds the best round's parameters.

    Attributes:
        best_round: counted from 1.
        records: of all rounds that were run, in their order.
    """

    best_round: int
    records: tuple[RoundRecord, ...]

    @property
    def client_updates(self) -> int:
        """Clients that trained, summed over rounds."""
        return sum(record.clients for record in self.records)

    @property
    def samples(self) -> int:
        """Samples that were trained on, summed over rounds and local epochs."""
        return sum(record.samples for record in self.records)


def fit(
    federation: Federation,
    validate: Validate,
    on_round: Callable[[RoundRecord], None] | None = None,
    checkpoints: Checkpoints | None = None,
    selected_by: str = SELECTED_BY,
) -> Fitted:
    """Run rounds until the last one or until patience is used up, then put the best round's parameters back.

    Args:
        federation: what is trained; `federation.spec.training` says how many rounds, and how often to validate. The
            last round is always validated.
        validate: returns the validation metrics of the present parameters.
        on_round: called with each round's record; rounds that a checkpoint has behind it are reported again.
        checkpoints: where to go on from, and to write to.
        selected_by: the validation metric that selects the round, higher is better.

    Raises:
        DivergedError: the training loss is no longer finite.
        FedVLRError: no round could be validated.
    """
    training = federation.spec.training
    progress = Progress(BestRound(training.patience)) if checkpoints is None else checkpoints.load(federation)
    if on_round is not None:
        for record in progress.records:
            on_round(record)
    while progress.rounds < training.rounds and not progress.best.stop:
        record = _one_round(federation, validate, progress, selected_by)
        if on_round is not None:
            on_round(record)
        if checkpoints is not None and progress.rounds % checkpoints.every == 0:
            checkpoints.save(federation, progress)
    if progress.best.state is None:
        raise FedVLRError("no round was validated; the data set has no validation items or NDCG is not a number")
    federation.load(progress.best.state, moments=False)
    return Fitted(progress.best.number, tuple(progress.records))


def _one_round(federation: Federation, validate: Validate, progress: Progress, selected_by: str) -> RoundRecord:
    """Run the next round, validate it where that is due, and add it to `progress`."""
    training = federation.spec.training
    number = progress.rounds + 1
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
        if progress.best.offer(number, valid[selected_by]):
            progress.best.state = federation.state(moments=False)
        seconds["evaluation"] = time.perf_counter() - begin
    record = RoundRecord(
        round=number,
        seconds=seconds,
        train_loss=uplink.loss,
        valid=valid,
        left_out=dict(uplink.left_out),
        accounts=dict(uplink.accounts),
        clients=uplink.clients,
        samples=uplink.samples,
    )
    progress.records.append(record)
    return record
