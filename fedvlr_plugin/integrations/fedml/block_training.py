"""One-user clients trained a block at a time, though FedML asks for one after another.

The batched engine trains the user that is asked for together with those that will be asked for next in the same
round, and keeps each upload until it is asked for. `expect` says which users come next; any other user, and one that is
asked for again, is trained alone.
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
    """What one user's training gave: the upload, the mean loss of its block, and whether it was not finite."""

    upload: dict[str, torch.Tensor]
    loss: float
    broken: bool


class Ahead:
    """Uploads of the users of a block, until FedML asks for them."""

    def __init__(self) -> None:
        self.round = 0
        self.coming: dict[int, None] = {}
        self.ready: dict[int, One] = {}

    def expect(self, round: int, users: Iterable[int]) -> None:
        """Each of these users will be asked for in the round, in about this order."""
        self.round, self.coming, self.ready = round, dict.fromkeys(users), {}

    def upload(self, engine: BatchedEngine, broadcast: Broadcast, user: int, round: int) -> One:
        """The user's upload of weight 1 for this broadcast."""
        if round != self.round:
            self.expect(round, ())
        if user not in self.ready:
            self._train(engine, broadcast, user)
        return self.ready.pop(user)

    def _train(self, engine: BatchedEngine, broadcast: Broadcast, user: int) -> None:
        """The user and as many of those to come as fit the memory for uploads."""
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
