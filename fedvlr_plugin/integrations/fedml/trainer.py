"""The client side of the FedML pair: FedML calls the trainer, and an engine of this package trains.

A process may hold several users: the data object names the users to train, and their private state can be stored
(`state_files`). `get_model_params` returns uploads only. This module imports FedML.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from fedml.core import ClientTrainer

from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.engines.batched import BatchedEngine
from fedvlr_plugin.engines.sequential import SequentialEngine
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml.block_training import Ahead
from fedvlr_plugin.integrations.fedml.messages import ROUND, Message, pack_upload, unpack_broadcast
from fedvlr_plugin.integrations.fedml.options import check_options, is_cross_silo, option, text
from fedvlr_plugin.integrations.fedml.state_files import PrivateStore
from fedvlr_plugin.integrations.fedml.task import ClientData, task_of


class FedVLRClientTrainer(ClientTrainer):
    """Trains the users of a FedML client on the broadcast, and holds their mean upload for FedML to send.

    Args:
        model: not used; FedML needs one.
        args: FedML's options.

    Attributes:
        loss: mean loss of the last training.

    Raises:
        ConfigError: an option that FedML ignores or that does not fit.
    """

    def __init__(self, model: torch.nn.Module, args: object) -> None:
        check_options(args)
        super().__init__(model, args)
        self.task = task_of(args)
        self.device = torch.device(text(args, "fedvlr_device", "cpu"))
        self.touched = text(args, "fedvlr_upload", "dense") == "touched"
        if text(args, "fedvlr_upload", "dense") not in ("dense", "touched"):
            raise ConfigError(f"fedvlr_upload: dense or touched, got '{option(args, 'fedvlr_upload')}'")
        self.alone = not is_cross_silo(args)
        folder = option(args, "fedvlr_private_state_dir")
        self.store = None if folder is None else PrivateStore(Path(str(folder)), self.task.run)
        self.engine = text(args, "fedvlr_engine", "sequential")
        if self.engine not in ("sequential", "batched"):
            raise ConfigError(f"fedvlr_engine: sequential or batched, got '{self.engine}'")
        if self.engine == "batched" and self.store is not None:
            raise ConfigError(
                "fedvlr_engine batched keeps private state in memory; leave fedvlr_private_state_dir out, or set "
                "fedvlr_engine: sequential"
            )
        self.loss = 0.0
        self.ahead = Ahead()
        self._engines: dict[int, SequentialEngine | BatchedEngine] = {}
        self._received: Message = OrderedDict()
        self._upload: Message = OrderedDict()

    def engine_for(self, data: ClientData) -> SequentialEngine | BatchedEngine:
        """Return the engine of a client's users: one for all users in one process, one for each client across silos."""
        key, users = (-1, None) if self.alone else (data.client, data.users)
        if key not in self._engines:
            problem = self.task.problem(self.device, users)
            batched = self.engine == "batched"
            self._engines[key] = BatchedEngine(problem, ExecutionConfig()) if batched else SequentialEngine(problem)
        return self._engines[key]

    def set_model_params(self, model_parameters: Message) -> None:
        """Receive the server's broadcast.

        Raises:
            ConfigError: the message is not from a FedVLR server, or the run continues without private state.
        """
        if ROUND not in model_parameters:
            raise ConfigError("this message is not a FedVLR server's; use FedVLRServerAggregator on the server")
        if self.store is None and not self._received and int(model_parameters[ROUND]) > 1:
            raise ConfigError(
                f"the run goes on from round {int(model_parameters[ROUND])} and its clients' private state is gone; give "
                "fedvlr_private_state_dir from the start, where fedvlr_checkpoint is given"
            )
        self._received = model_parameters

    def get_model_params(self) -> Message:
        """Return the upload of the last training, which holds no private state; empty before any training."""
        return self._upload

    def train(self, train_data: ClientData, device: object, args: object) -> None:
        """Run the local epochs of the client's users that are in the round's cohort.

        Args:
            train_data: of the client.
            device: not used, see `fedvlr_device`.
            args: not used.
        """
        round = int(self._received[ROUND])
        cohort = self.task.cohort(round)
        users = [user for user in train_data.users if user in cohort]
        engine = self.engine_for(train_data)
        dtype = engine.problem.dtype
        broadcast = unpack_broadcast(self._received, self.device, dtype)
        ids = torch.tensor(users, dtype=torch.int64, device=self.device)
        if engine.problem.backbone.client_weight == "equal":
            weights = torch.ones(len(users), dtype=torch.float64, device=self.device)
        else:
            weights = engine.problem.histories.weights[ids].to(torch.float64)
        weight = float(weights.sum())
        if self.alone and users and isinstance(engine, BatchedEngine):
            one = self.ahead.upload(engine, broadcast, users[0], round)
            self.loss, weight = one.loss, 0.0 if one.broken else weight
            upload = (
                one.upload if weight else {name: torch.zeros_like(value) for name, value in broadcast.named().items()}
            )
            self._upload = pack_upload(upload, round, train_data.client, weight, int(one.broken), self.touched)
            return
        if self.store is not None:
            self.store.enter(engine, users, round)
        uplink = engine.local_round(broadcast, ids, (weights / max(weight, 1.0)).to(dtype), round)
        if self.store is not None:
            self.store.leave(engine, users, round)
        self.loss = uplink.loss
        broken = uplink.left_out.get("not finite", 0)
        if broken and not uplink.clients:
            weight = 0.0
        self._upload = pack_upload(uplink.sums, round, train_data.client, weight, broken, self.touched)

    def test(self, test_data: ClientData, device: object, args: object) -> None:
        """Do nothing: a user's rank is private. A single-process run reports means over users (`model_selection`)."""
