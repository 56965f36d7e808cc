"""The sequential engine: one client at a time, plain autograd, torch's own optimisers. Slow and obviously right.

Every client holds leaf tensors of its own and a leaf copy of the broadcast; the loss is written as in the paper,
and `torch.autograd.grad` gives what is updated at home and what is uploaded. The batched engine is held against
this one (float64, 1e-9). Private item rows follow SparseAdam: rows that a batch does not touch are frozen.
Imports the federation's parts, not `batched`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf

from fedvlr_plugin.federation.contract import Uplink
from fedvlr_plugin.federation.optimizers import BETA1, BETA2, EPS
from fedvlr_plugin.federation.plain_client import Client, PlainView, client_state, load_client
from fedvlr_plugin.federation.samples import Step
from fedvlr_plugin.federation.setup import LocalProblem
from fedvlr_plugin.federation.sinks import touched_keys
from fedvlr_plugin.federation.uploads import ClientUploads, Collect, UploadShape
from fedvlr_plugin.rng import Stream, generator


class Trained(NamedTuple):
    """A client's round: its accumulated upload, the loss of each step, samples seen, and items touched."""

    upload: dict[str, torch.Tensor]
    losses: list[float]
    samples: int
    touched: torch.Tensor


class SequentialEngine:
    """See the module. Private state lives in `clients`, one object per user id."""

    def __init__(self, problem: LocalProblem) -> None:
        self.problem = problem
        self.clients: dict[int, Client] = {}

    def local_round(
        self,
        broadcast: dict[str, torch.Tensor],
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        begin = time.perf_counter()
        shape = UploadShape(broadcast)
        sums = {name: torch.zeros_like(value) for name, value in broadcast.items()}
        losses, samples, broken = [], 0, 0
        for user, alpha in zip(cohort.tolist(), weights, strict=True):
            client = self._start(user)
            before = copy.deepcopy(client)
            trained = self._train(client, user, broadcast, round)
            samples += trained.samples
            if not trained.losses:
                continue
            if not self._whole(client, trained):
                before.forget_own()
                self.clients[user] = before
                broken += 1
                continue
            losses.append(sum(trained.losses) / len(trained.losses))
            if collect is not None:
                collect(self._alone(user, trained, shape))
                continue
            for name, value in trained.upload.items():
                sums[name] += alpha * value
        loss = float(np.mean(losses)) if losses else 0.0
        left_out = {"not finite": broken} if broken else {}
        seconds = {"local": time.perf_counter() - begin}
        return Uplink({} if collect else sums, loss, len(losses), samples, seconds, left_out)

    def _whole(self, client: Client, trained: Trained) -> bool:
        """Whether everything about a client's round is finite."""
        tensors = [*trained.upload.values(), *client.dense()]
        return all(map(math.isfinite, trained.losses)) and all(bool(torch.isfinite(t).all()) for t in tensors)

    def _alone(self, user: int, trained: Trained, shape: UploadShape) -> ClientUploads:
        """One client's upload as rows."""
        rows, layers = shape.flatten(trained.upload)
        clients = torch.tensor([user], device=rows.device)
        sizes = self.problem.histories.weights[clients]
        return ClientUploads(shape, clients, sizes, trained.touched, rows[trained.touched], layers[None])

    def _train(self, client: Client, user: int, broadcast: dict[str, torch.Tensor], round: int) -> Trained:
        """All local epochs of one client."""
        problem = self.problem
        received = {name: value.clone().requires_grad_() for name, value in broadcast.items()}
        upload = {name: torch.zeros_like(value) for name, value in broadcast.items()}
        losses: list[float] = []
        samples = 0
        slot = problem.histories.slot_of[user : user + 1]
        if int(problem.sampler.samples_per_epoch()[slot]) == 0:
            return Trained(upload, losses, samples, slot[:0])
        block = problem.sampler.block(slot)
        steps = []
        for epoch in range(problem.spec.training.local_epochs):
            for step in block.epoch(round, epoch):
                loss = self._loss(client, received, block.history_items, step, round)
                private = client.dense() + ([] if client.own is None else [client.own])
                leaves = [*private, *received.values()]
                grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                for parameter, grad in zip(private, grads, strict=False):
                    parameter.grad = grad
                for name, grad in zip(received, grads[len(private) :], strict=True):
                    upload[name] += grad
                for optimizer in client.optimizers:
                    optimizer.step()
                if client.own is not None:
                    self._step_own(client, torch.unique(step.items))
                losses.append(float(loss.detach()))
                samples += len(step.items)
                steps.append(step)
        touched = touched_keys(block, steps, problem.histories.n_items, client.router is not None)
        return Trained(upload, losses, samples, touched)

    def _loss(
        self, client: Client, broadcast: dict[str, torch.Tensor], history: torch.Tensor, step: Step, round: int
    ) -> torch.Tensor:
        """Batch-mean loss of one client: cross-entropy plus the backbone's penalty, or BPR over pairs."""
        backbone = self.problem.backbone
        weights = self._mixture(client, broadcast, history)
        scores = backbone.logits(PlainView(client, broadcast, step.items, weights))[0]
        if step.positives is not None:
            better = backbone.logits(PlainView(client, broadcast, step.positives, weights))[0]
            return -nnf.logsigmoid(better - scores).mean()
        if step.labels is None:
            raise RuntimeError("a step has labels or pairs")
        loss = nnf.binary_cross_entropy_with_logits(scores, step.labels)
        if not backbone.has_penalty:
            return loss
        penalty = backbone.penalty(PlainView(client, broadcast, torch.unique(step.items), weights), round)
        return loss if penalty is None else loss + penalty[0]

    def _mixture(
        self, client: Client, broadcast: dict[str, torch.Tensor], history: torch.Tensor
    ) -> torch.Tensor | None:
        """w_u `[G]` from the pooled history, None without a router."""
        if client.router is None or self.problem.router is None:
            return None
        views = broadcast["views"]
        pooled = views[:, history].mean(1) if len(history) else torch.zeros_like(views[:, 0])
        return self.problem.router.forward(client.router[None], pooled.reshape(1, -1)).weights[0]

    def _step_own(self, client: Client, touched: torch.Tensor) -> None:
        """SparseAdam (or SGD) on the touched private item rows."""
        own, lr = client.own, self.problem.spec.training.client_lr
        if own is None or own.grad is None:
            return
        client.own_steps += 1
        grad = own.grad[touched]
        with torch.no_grad():
            if client.own_moments is None:
                own[touched] -= lr * grad
                return
            first, second = client.own_moments
            first[touched] = BETA1 * first[touched] + (1 - BETA1) * grad
            second[touched] = BETA2 * second[touched] + (1 - BETA2) * grad**2
            mean = first[touched] / (1 - BETA1**client.own_steps)
            spread = second[touched] / (1 - BETA2**client.own_steps)
            own[touched] -= lr * mean / (spread.sqrt() + EPS)

    def _start(self, user: int) -> Client:
        """The client as it enters a round; what the backbone (or `as_released`) forgets is forgotten here."""
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
    def score(self, broadcast: dict[str, torch.Tensor], users: torch.Tensor) -> torch.Tensor:
        items = torch.arange(self.problem.histories.n_items, device=self.problem.device)
        rows = []
        for user in users.tolist():
            client = self._for_evaluation(user)
            weights = self._mixture(client, broadcast, self._history(user))
            rows.append(self.problem.backbone.logits(PlainView(client, broadcast, items, weights))[0])
        return torch.stack(rows)

    @torch.no_grad()
    def router_weights(self, broadcast: dict[str, torch.Tensor]) -> npt.NDArray[np.float64] | None:
        if self.problem.router is None:
            return None
        rows = []
        for user in self.problem.clients().tolist():
            weights = self._mixture(self._for_evaluation(user), broadcast, self._history(user))
            if weights is not None:
                rows.append(weights.double().cpu().numpy())
        stacked: npt.NDArray[np.float64] = np.stack(rows)
        return stacked

    def _history(self, user: int) -> torch.Tensor:
        slot = self.problem.histories.slot_of[user : user + 1]
        return self.problem.histories.ragged(slot)[2]

    def export_private(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError("checkpoints are written by the batched engine; set engine: batched")

    def import_private(self, state: dict[str, torch.Tensor]) -> None:
        raise NotImplementedError("checkpoints are read by the batched engine; set engine: batched")

    def training_state(self) -> dict[str, torch.Tensor]:
        return self.snapshot_state(self.clients)

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.clients = self.load_snapshot_state(state)

    def snapshot_state(self, snapshot: object) -> dict[str, torch.Tensor]:
        if not isinstance(snapshot, dict):
            raise TypeError("not a snapshot of the sequential engine")
        return {
            f"{user}.{name}": value
            for user, client in sorted(snapshot.items())
            for name, value in client_state(client).items()
        }

    def load_snapshot_state(self, state: Mapping[str, torch.Tensor]) -> dict[int, Client]:
        of_user: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            of_user.setdefault(int(number), {})[name] = value
        clients = {user: self._initial() for user in of_user}
        for user, values in of_user.items():
            load_client(clients[user], values)
        return clients

    def snapshot(self) -> object:
        return copy.deepcopy(self.clients)

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, dict):
            raise TypeError("not a snapshot of the sequential engine")
        self.clients = copy.deepcopy(snapshot)
