"""One client of the sequential engine: its leaf tensors and torch optimisers, how a backbone sees it, and its training.

Training is plain autograd over the loss as the paper writes it:

    loss = cross-entropy of the batch (or BPR over pairs) + the backbone's penalty

Head, router and private item vectors step at the client; its upload is the gradient with respect to all that was
received, added up over steps. Private item vectors follow SparseAdam: those that a batch does not touch are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.engines.accumulation import touched_keys
from fedvlr_plugin.engines.base import LocalProblem
from fedvlr_plugin.engines.optimizers import BETA1, BETA2, EPS
from fedvlr_plugin.engines.sampling import Step


class SingleClientView:
    """`ClientView` of one client: B = 1, `items [S]`."""

    def __init__(
        self,
        client: Client,
        broadcast: Broadcast,
        items: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> None:
        self.client, self.broadcast, self.items, self.weights = client, broadcast, items, weights

    @property
    def has_item(self) -> bool:
        return self.broadcast.views is not None

    def private(self, name: str) -> torch.Tensor:
        return self.client.head[name][None, None]

    def item(self) -> torch.Tensor:
        views = self.broadcast.item_views()[:, self.items]
        return views[0][None] if self.weights is None else torch.einsum("g,gsd->sd", self.weights, views)[None]

    def table(self, name: str) -> torch.Tensor:
        return self.broadcast.tables[name][self.items][None]

    def own(self) -> torch.Tensor:
        if self.client.own is None:
            raise RuntimeError("this backbone declares no private item rows")
        return self.client.own[self.items][None]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return nnf.linear(x, *self.broadcast.layers[name])

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        rows = self.table(table) + self.item() if self.has_item else self.table(table)
        return self.linear(name, torch.cat([user.expand(1, rows.shape[1], -1), rows], dim=-1))

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.linear(name, torch.cat([hidden, user * rows], dim=-1))[..., 0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(1, 2))


@dataclass
class Client:
    """Everything one client keeps: head, router, private item vectors `[n_items, d]`, and their optimisers."""

    head: dict[str, torch.Tensor]
    router: torch.Tensor | None
    own: torch.Tensor | None
    optimizers: list[torch.optim.Optimizer]
    own_moments: tuple[torch.Tensor, torch.Tensor] | None = None
    own_steps: int = 0

    def dense(self) -> list[torch.Tensor]:
        """The leaf tensors that torch's optimisers step."""
        return [*self.head.values(), *([] if self.router is None else [self.router])]

    @torch.no_grad()
    def forget_own(self) -> None:
        """Set the private item vectors back to zero, with fresh moments."""
        for tensor in (self.own, *(self.own_moments or ())):
            if tensor is not None:
                tensor.zero_()
        self.own_steps = 0


def client_state(client: Client, moments: bool) -> dict[str, torch.Tensor]:
    """Copies of a client's parameters as tensors by name, with `moments` also those of its optimisers and their steps."""
    state = {f"head.{name}": value.detach() for name, value in client.head.items()}
    if client.router is not None:
        state["router"] = client.router.detach()
    if client.own is not None:
        state["own"] = client.own.detach()
    if moments:
        if client.own is not None:
            state["own_steps"] = torch.tensor(client.own_steps)
        state |= dict(zip(("own_first", "own_second"), client.own_moments or (), strict=False))
        for number, optimizer in enumerate(client.optimizers):
            for parameter, values in optimizer.state_dict()["state"].items():
                state |= {f"optimizer.{number}.{parameter}.{key}": value for key, value in values.items()}
    return {name: value.clone() for name, value in state.items()}


@torch.no_grad()
def load_client(client: Client, state: Mapping[str, torch.Tensor]) -> None:
    """Put a state into a new client of the same kind; its optimisers stay new where the state holds no moments.

    Raises:
        KeyError: a tensor is missing.
    """
    for name, value in client.head.items():
        value.copy_(state[f"head.{name}"])
    if client.router is not None:
        client.router.copy_(state["router"])
    if client.own is not None:
        client.own.copy_(state["own"])
        if "own_steps" in state:
            client.own_steps = int(state["own_steps"])
            for name, moment in zip(("own_first", "own_second"), client.own_moments or (), strict=False):
                moment.copy_(state[name])
    for number, optimizer in enumerate(client.optimizers):
        whole = optimizer.state_dict()
        for key, value in state.items():
            if key.startswith(f"optimizer.{number}."):
                parameter, entry = key.split(".")[2:]
                whole["state"].setdefault(int(parameter), {})[entry] = value
        optimizer.load_state_dict(whole)


class Trained(NamedTuple):
    """A client's round: its accumulated upload, the loss of each step, samples trained on, and items touched."""

    upload: dict[str, torch.Tensor]
    losses: list[float]
    samples: int
    touched: torch.Tensor


class ClientTraining:
    """Local training of clients; holds no state, clients and what they received are passed in."""

    def __init__(self, problem: LocalProblem) -> None:
        self.problem = problem

    def train(self, client: Client, user: int, broadcast: Broadcast, round: int) -> Trained:
        """Run all local epochs of one client; changes it in place.

        Args:
            client: its private state.
            user: its user id.
            broadcast: what the server sent.
            round: counted from 1.
        """
        problem = self.problem
        received = broadcast.map(lambda tensor: tensor.clone().requires_grad_())
        received_tensors = received.named()
        upload = {name: torch.zeros_like(tensor) for name, tensor in received_tensors.items()}
        losses: list[float] = []
        samples = 0
        slot = problem.histories.slot_of[user : user + 1]
        if int(problem.sampler.samples_per_epoch()[slot]) == 0:
            return Trained(upload, losses, samples, slot[:0])
        block = problem.sampler.block(slot)
        steps = []
        for epoch in range(problem.spec.training.local_epochs):
            for step in block.epoch(round, epoch):
                loss = self.loss(client, received, block.history_items, step, round)
                private = client.dense() + ([] if client.own is None else [client.own])
                leaves = [*private, *received_tensors.values()]
                grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                for parameter, grad in zip(private, grads, strict=False):
                    parameter.grad = grad
                for name, grad in zip(received_tensors, grads[len(private) :], strict=True):
                    upload[name] += grad
                for optimizer in client.optimizers:
                    optimizer.step()
                if client.own is not None:
                    self.step_own(client, torch.unique(step.items))
                losses.append(float(loss.detach()))
                samples += len(step.items)
                steps.append(step)
        touched = touched_keys(block, steps, problem.histories.n_items, client.router is not None)
        return Trained(upload, losses, samples, touched)

    def loss(self, client: Client, broadcast: Broadcast, history: torch.Tensor, step: Step, round: int) -> torch.Tensor:
        """Batch-mean loss of one client: cross-entropy plus the backbone's penalty, or BPR over pairs."""
        backbone = self.problem.backbone
        weights = self.mixture(client, broadcast, history)
        scores = backbone.logits(SingleClientView(client, broadcast, step.items, weights))[0]
        if step.positives is not None:
            better = backbone.logits(SingleClientView(client, broadcast, step.positives, weights))[0]
            return -nnf.logsigmoid(better - scores).mean()
        if step.labels is None:
            raise RuntimeError("a step has labels or pairs")
        loss = nnf.binary_cross_entropy_with_logits(scores, step.labels)
        if not backbone.has_penalty:
            return loss
        penalty = backbone.penalty(SingleClientView(client, broadcast, torch.unique(step.items), weights), round)
        return loss if penalty is None else loss + penalty[0]

    def mixture(self, client: Client, broadcast: Broadcast, history: torch.Tensor) -> torch.Tensor | None:
        """w_u `[G]` from the pooled history, None without a router."""
        if client.router is None or self.problem.router is None:
            return None
        views = broadcast.item_views()
        pooled = views[:, history].mean(1) if len(history) else torch.zeros_like(views[:, 0])
        return self.problem.router.forward(client.router[None], pooled.reshape(1, -1)).weights[0]

    def step_own(self, client: Client, touched: torch.Tensor) -> None:
        """Step (SparseAdam or SGD) the private item vectors of the items `touched`."""
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
