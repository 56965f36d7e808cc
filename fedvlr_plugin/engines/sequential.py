"""The sequential engine: one client at a time, plain autograd, torch's own optimisers. Slow and obviously right.

Every client holds leaf tensors and a leaf copy of the broadcast; `sequential_client` takes its steps. The batched engine
is tested against this one (float64, 1e-9).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.uploads import ClientUploads, Collect, UploadShape
from fedvlr_plugin.engines.base import LocalProblem, Uplink
from fedvlr_plugin.engines.sequential_client import (
    Client,
    ClientTraining,
    SingleClientView,
    Trained,
    client_state,
    load_client,
)
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.rng import Stream, generator


class SequentialEngine:
    """See the module.

    Args:
        problem: the clients' side of the run.

    Attributes:
        clients: private state by user id, of the clients that have trained.
    """

    def __init__(self, problem: LocalProblem) -> None:
        self.problem = problem
        self.training = ClientTraining(problem)
        self.clients: dict[int, Client] = {}

    def local_round(
        self,
        broadcast: Broadcast,
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        begin = time.perf_counter()
        shape = UploadShape(broadcast.named())
        sums = {name: torch.zeros_like(value) for name, value in broadcast.named().items()}
        losses, samples, broken = [], 0, 0
        for user, alpha in zip(cohort.tolist(), weights, strict=True):
            client = self._start(user)
            before = copy.deepcopy(client)
            trained = self.training.train(client, user, broadcast, round)
            samples += trained.samples
            if not trained.losses:
                continue
            if not self._is_finite(client, trained):
                before.forget_own()
                self.clients[user] = before
                broken += 1
                continue
            losses.append(sum(trained.losses) / len(trained.losses))
            if collect is not None:
                collect(self._upload(user, trained, shape))
                continue
            for name, value in trained.upload.items():
                sums[name] += alpha * value
        loss = float(np.mean(losses)) if losses else 0.0
        left_out = {"not finite": broken} if broken else {}
        seconds = {"local": time.perf_counter() - begin}
        return Uplink({} if collect else sums, loss, len(losses), samples, seconds, left_out)

    def _is_finite(self, client: Client, trained: Trained) -> bool:
        """Whether everything about a client's round is finite."""
        tensors = [*trained.upload.values(), *client.dense()]
        return all(map(math.isfinite, trained.losses)) and all(bool(torch.isfinite(t).all()) for t in tensors)

    def _upload(self, user: int, trained: Trained, shape: UploadShape) -> ClientUploads:
        """One client's upload, as rules take it."""
        rows, layers = shape.flatten(trained.upload)
        clients = torch.tensor([user], device=rows.device)
        sizes = self.problem.histories.weights[clients]
        return ClientUploads(shape, clients, sizes, trained.touched, rows[trained.touched], layers[None])

    def _start(self, user: int) -> Client:
        """The client as it enters a round, without what the backbone (or `as_released`) forgets."""
        old = self.clients.get(user)
        spec, backbone = self.problem.spec, self.problem.backbone
        forgets = frozenset() if spec.protocol.keep_private_state else backbone.forgets
        new = self._initial()
        if old is None:
            self.clients[user] = new
            return new
        if "head" not in forgets:
            new.head, new.optimizers[0] = old.head, old.optimizers[0]
        if old.router is not None and "router" not in forgets:
            new.router, new.optimizers[1] = old.router, old.optimizers[1]
        if backbone.own_rows == "persistent" and "own" not in forgets:
            new.own, new.own_moments, new.own_steps = old.own, old.own_moments, old.own_steps
        self.clients[user] = new
        return new

    def _initial(self) -> Client:
        problem, training = self.problem, self.problem.spec.training
        source = generator(problem.spec.seed, Stream.CLIENT_INIT)
        head = problem.backbone.initial_private(source)
        head = {n: v.to(problem.device, problem.dtype).requires_grad_() for n, v in head.items()}
        router = None
        if problem.router is not None:
            router = problem.router.initial(source, torch.float64).to(problem.device, problem.dtype).requires_grad_()
        kind = torch.optim.Adam if training.client_optimizer == "adam" else torch.optim.SGD
        optimizers: list[torch.optim.Optimizer] = [kind(list(head.values()), lr=training.client_lr)]
        if router is not None:
            optimizers.append(kind([router], lr=training.effective_router_lr))
        own = moments = None
        if problem.backbone.own_rows != "none":
            own = torch.zeros(
                problem.histories.n_items, problem.fusion.dim, dtype=problem.dtype, device=problem.device
            ).requires_grad_()
            if training.client_optimizer == "adam":
                moments = (torch.zeros_like(own), torch.zeros_like(own))
        return Client(head, router, own, optimizers, moments)

    def _for_evaluation(self, user: int) -> Client:
        spec, backbone = self.problem.spec, self.problem.backbone
        kept, fresh = self.clients.get(user), self._initial()
        if kept is None:
            return fresh
        if spec.protocol.keep_private_state:
            return kept
        forgets = backbone.forgets
        return Client(
            fresh.head if "head" in forgets else kept.head,
            fresh.router if "router" in forgets else kept.router,
            fresh.own if "own" in forgets else kept.own,
            [],
        )

    @torch.no_grad()
    def score(self, broadcast: Broadcast, users: torch.Tensor) -> torch.Tensor:
        items = torch.arange(self.problem.histories.n_items, device=self.problem.device)
        rows = []
        for user in users.tolist():
            client = self._for_evaluation(user)
            weights = self.training.mixture(client, broadcast, self._history(user))
            rows.append(self.problem.backbone.logits(SingleClientView(client, broadcast, items, weights))[0])
        return torch.stack(rows)

    @torch.no_grad()
    def router_weights(self, broadcast: Broadcast) -> npt.NDArray[np.float64] | None:
        if self.problem.router is None:
            return None
        rows = []
        for user in self.problem.clients().tolist():
            weights = self.training.mixture(self._for_evaluation(user), broadcast, self._history(user))
            if weights is not None:
                rows.append(weights.double().cpu().numpy())
        stacked: npt.NDArray[np.float64] = np.stack(rows)
        return stacked

    def _history(self, user: int) -> torch.Tensor:
        slot = self.problem.histories.slot_of[user : user + 1]
        return self.problem.histories.ragged(slot)[2]

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        return {
            f"{user}.{name}": value
            for user, client in sorted(self.clients.items())
            for name, value in client_state(client, moments).items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in state.items():
            user, _, name = key.partition(".")
            if not user.isdecimal() or not name:
                raise ConfigError(
                    f"'{key}' is no private state of the sequential engine; load what the same engine gave"
                )
            states.setdefault(int(user), {})[name] = tensor
        clients = {number: self._initial() for number in states}
        for number, client in clients.items():
            load_client(client, states[number])
        self.clients = clients
