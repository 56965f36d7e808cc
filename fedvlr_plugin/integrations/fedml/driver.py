"""Run all users in one process through FedML's public runner: `FedMLRunner(..., algorithm_flow=Driver(...))`.

FedML's simulator ignores a custom trainer and aggregator, so `Driver` calls their hooks in the order of the cross-silo
mode. Users are drawn with counters, never from the global random state.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
from fedvlr_plugin.integrations.fedml.defenses import Raw
from fedvlr_plugin.integrations.fedml.messages import Message
from fedvlr_plugin.integrations.fedml.task import ClientData
from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer

AT_ONCE = 64


class Driver:
    """Runs the rounds of a single-process run.

    Args:
        args: FedML's arguments.
        dataset: the first of what `load_data` returned.
        trainer: client side of all clients.
        aggregator: server side.
        on_round: called with each round's record.

    Attributes:
        records: of the rounds so far. In a record, `clients` is the number of FedML clients called, and `left_out`
            counts the uploads of the round that were not used.

    Raises:
        ConfigError: `dataset` is not one that `load_data` returned.
    """

    def __init__(
        self,
        args: object,
        dataset: Sequence[object],
        trainer: FedVLRClientTrainer,
        aggregator: FedVLRServerAggregator,
        on_round: Callable[[RoundRecord], None] | None = None,
    ) -> None:
        if len(dataset) != 8 or not isinstance(dataset[5], dict):
            raise ConfigError("the dataset must be the list of eight that fedvlr_plugin's load_data(args) returns")
        self.args, self.trainer, self.aggregator, self.on_round = args, trainer, aggregator, on_round
        self.device = getattr(args, "device", None)
        self.clients: dict[int, ClientData] = dataset[5]
        self.records: list[RoundRecord] = []

    def run(self) -> None:
        """Run all remaining rounds."""
        while self.aggregator.round <= self.aggregator.task.spec.training.rounds:
            self.one_round()

    def one_round(self) -> RoundRecord:
        """Run one round: the broadcast, every client of the cohort in turn, and the server's hooks."""
        begin, aggregator, number = time.perf_counter(), self.aggregator, self.aggregator.round
        left_out_before = Counter(aggregator.left_out)
        broadcast = aggregator.get_model_params()
        cohort = aggregator.task.cohort(number)
        called = [client for client in self.clients.values() if not cohort.isdisjoint(client.users)]
        self.trainer.ahead.expect(number, [user for client in called for user in client.users if user in cohort])
        raw: Raw = []
        losses = []
        for client in called:
            raw.append(self.train_one(client, broadcast))
            losses.append(self.trainer.loss)
            if not aggregator.looks_at_each and len(raw) > AT_ONCE:
                raw = aggregator.merge(raw, client=-1 - len(losses))
        kept, _ = aggregator.on_before_aggregation(raw)
        following = aggregator.on_after_aggregation(aggregator.aggregate(kept))
        aggregator.set_model_params(following)
        aggregator.test_all(self.clients, self.clients, self.device, self.args)
        seconds = time.perf_counter() - begin
        trained = [loss for loss in losses if loss > 0]
        loss = sum(trained) / max(len(trained), 1)
        left_out = dict(aggregator.left_out - left_out_before)
        record = RoundRecord(number, {"local": seconds}, loss, None, left_out, clients=len(called))
        self.records.append(record)
        if self.on_round is not None:
            self.on_round(record)
        return record

    def train_one(self, client: ClientData, broadcast: Message) -> tuple[float, Message]:
        """Train one FedML client, and return the number of its samples and its upload."""
        trainer = self.trainer
        trainer.set_id(client.client)
        trainer.update_dataset(client, client, client.samples)
        trainer.set_model_params(broadcast)
        trainer.on_before_local_training(client, self.device, self.args)
        trainer.train(client, self.device, self.args)
        trainer.on_after_local_training(client, self.device, self.args)
        return client.samples, trainer.get_model_params()
