"""Compute HR@50 and NDCG@50 of a single-process run: the best round is chosen by validation, test is read once.

This process holds all users, so it can compute their scores; across silos no process can. Every `eval_every` rounds the
validation items are ranked. Broadcast and private state of the best round are kept in memory, and only means over users
are reported. Pass a `Selection` to `Driver` as `on_round`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Phase, rank_positives
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.federation.training import SELECTED_BY

if TYPE_CHECKING:
    from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
    from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer


class Selection:
    """Validates rounds and keeps the best one.

    Args:
        trainer: client side, which holds the private state of all users.
        aggregator: server side.
        then: called with each round's record.

    Attributes:
        best: the selected round so far, with copies of its broadcast and private state.
        valid: its validation metrics in percent.
    """

    def __init__(
        self,
        trainer: FedVLRClientTrainer,
        aggregator: FedVLRServerAggregator,
        then: Callable[[RoundRecord], object] | None = None,
    ) -> None:
        self.trainer, self.aggregator, self.then = trainer, aggregator, then
        self.task = aggregator.task
        self.engine = trainer.engine_for(self.task.clients[0])
        self.first, self.last = aggregator.round, 0
        self.best: BestRound[tuple[Broadcast, dict[str, torch.Tensor]]] = BestRound(self.task.spec.training.patience)
        self.valid: Mapping[str, float] = {}
        self._problem = ""

    def __call__(self, record: RoundRecord) -> None:
        """Validate the round of a record if it is due."""
        training = self.task.spec.training
        if self.then is not None:
            self.then(record)
        if self.trainer.store is not None and self.first == record.round > 1:  # users without state in this process
            all_users = [user for client in self.task.clients for user in client.users]
            self.trainer.store.enter(self.engine, all_users, record.round + 1)
        if self.best.stop:
            return  # the table runner would not have come here, so it cannot select this round
        self.last = record.round
        if record.round % training.eval_every == 0 or record.round == training.rounds:
            self._validate(record.round)

    def _validate(self, number: int) -> None:
        broadcast = self.aggregator.server.broadcast()
        try:
            valid = self._metrics(broadcast, "valid")
        except FedVLRError as error:  # a model that cannot be ranked must not stop FedML's run
            self._problem = str(error)
            self.best.offer_nothing()
            return
        if self.best.offer(number, valid[SELECTED_BY]):
            self.valid = valid
            self.best.state = broadcast.map(torch.Tensor.clone), self.engine.state(moments=False)

    def line(self) -> str:
        """Return one line: the selected round with its validation and test metrics, or why there are none."""
        if self.best.state is None:
            return f"no metrics: {self._problem or 'no round was run'}"
        broadcast, private = self.best.state
        present = self.engine.state(moments=True)
        self.engine.load(private)
        try:
            test = _format_metrics(self._metrics(broadcast, "test"))
        except FedVLRError as error:
            test = f"none ({error})"
        finally:
            self.engine.load(present)
        return (
            f"selected round {self.best.number} of {self.first} to {self.last} by validation NDCG@50: "
            f"validation {_format_metrics(self.valid)}; test {test} (percent, protocol {self.task.spec.protocol.name})"
        )

    def _metrics(self, broadcast: Broadcast, phase: Phase) -> dict[str, float]:
        """Compute the mean metrics over users in percent, as for the tables."""
        mask = phase == "valid" or self.task.spec.protocol.mask_validation_at_test

        def score(users: torch.Tensor) -> torch.Tensor:
            return self.engine.score(broadcast, users)

        device = str(self.trainer.device)
        return summary(rank_positives(score, self.task.data.interactions, phase, mask_validation=mask, device=device))


def _format_metrics(metrics: Mapping[str, float]) -> str:
    return f"HR@50 {metrics['hr@50']:.2f}, NDCG@50 {metrics['ndcg@50']:.2f}"
