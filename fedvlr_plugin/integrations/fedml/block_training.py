"""Train one-user clients in blocks, although FedML requests them one by one.

The batched engine trains the requested user together with the next ones of the same round, and keeps their uploads
until they are requested. `expect` names the users of a round in order. A user that is not expected, or is requested
again, is trained alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.engines.batched import BatchedEngine

BYTES_AT_ONCE = 64 * 1024**2


class One(NamedTuple):
    """The result of training one user.

    Attributes:
        upload: by the names of the broadcast.
        loss: mean loss of the user's block.
        broken: whether the upload was not finite; it is zero then.
    """

    upload: dict[str, torch.Tensor]
    loss: float
    broken: bool


class Ahead:
    """Uploads of a block of users, kept until FedML requests them."""

    def __init__(self) -> None:
        self.round = 0
        self.coming: dict[int, None] = {}
        self.ready: dict[int, One] = {}

    def expect(self, round: int, users: Iterable[int]) -> None:
        """Set the users that will be requested in a round, in about this order."""
        self.round, self.coming, self.ready = round, dict.fromkeys(users), {}

    def upload(self, engine: BatchedEngine, broadcast: Broadcast, user: int, round: int) -> One:
        """Return the upload of a user, unweighted.

        Args:
            engine: of all users.
            broadcast: of the round.
            user: id.
            round: counted from 1.
        """
        if round != self.round:
            self.expect(round, ())
        if user not in self.ready:
            self._train(engine, broadcast, user)
        return self.ready.pop(user)

    def _train(self, engine: BatchedEngine, broadcast: Broadcast, user: int) -> None:
        """Train a user together with as many expected users as fit the memory for uploads."""
        self.coming.pop(user, None)
        block = [user, *list(self.coming)[: max(0, BYTES_AT_ONCE // broadcast.size_bytes - 1)]]
        for one in block[1:]:
            del self.coming[one]
        problem = engine.problem
        ids = torch.tensor(block, dtype=torch.int64, device=problem.device)
        dense: dict[int, dict[str, torch.Tensor]] = {}

        def keep(uploads: ClientUploads) -> None:
            for position, client in enumerate(uploads.clients.tolist()):
                dense[client] = uploads.dense(position)

        uplink = engine.local_round(broadcast, ids, torch.ones_like(ids, dtype=problem.dtype), self.round, keep)
        trains = problem.sampler.samples_per_epoch()[problem.histories.slot_of[ids]] > 0
        nothing = {name: torch.zeros_like(value) for name, value in broadcast.named().items()}
        for one, has_samples in zip(block, trains.tolist(), strict=True):
            loss = uplink.loss if one in dense else 0.0
            self.ready[one] = One(dense.get(one, nothing), loss, has_samples and one not in dense)
