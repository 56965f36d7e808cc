"""One client's local training in the sequential engine: plain autograd over the loss as the paper writes it.

    loss = cross-entropy of the batch (or BPR over pairs) + the backbone's penalty
    at home: head, router, item rows step;  upload: the gradient with respect to all that was received, added up over steps

Item rows follow SparseAdam: those that a batch does not touch are frozen. Imports the federation's parts, not the engines.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.federation.optimizers import BETA1, BETA2, EPS
from fedvlr_plugin.federation.plain_client import Client, PlainView
from fedvlr_plugin.federation.samples import Step
from fedvlr_plugin.federation.setup import LocalProblem
from fedvlr_plugin.federation.sinks import touched_keys


class Trained(NamedTuple):
    """A client's round: its accumulated upload, the loss of each step, samples seen, and items touched."""

    upload: dict[str, torch.Tensor]
    losses: list[float]
    samples: int
    touched: torch.Tensor


class PlainTraining:
    """See the module. Holds no state: clients and what they received are passed in."""

    def __init__(self, problem: LocalProblem) -> None:
        self.problem = problem

    def train(self, client: Client, user: int, broadcast: dict[str, torch.Tensor], round: int) -> Trained:
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
                loss = self.loss(client, received, block.history_items, step, round)
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
                    self.step_own(client, torch.unique(step.items))
                losses.append(float(loss.detach()))
                samples += len(step.items)
                steps.append(step)
        touched = touched_keys(block, steps, problem.histories.n_items, client.router is not None)
        return Trained(upload, losses, samples, touched)

    def loss(
        self, client: Client, broadcast: dict[str, torch.Tensor], history: torch.Tensor, step: Step, round: int
    ) -> torch.Tensor:
        """Batch-mean loss of one client: cross-entropy plus the backbone's penalty, or BPR over pairs."""
        backbone = self.problem.backbone
        weights = self.mixture(client, broadcast, history)
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

    def mixture(self, client: Client, broadcast: dict[str, torch.Tensor], history: torch.Tensor) -> torch.Tensor | None:
        """w_u `[G]` from the pooled history, None without a router."""
        if client.router is None or self.problem.router is None:
            return None
        views = broadcast["views"]
        pooled = views[:, history].mean(1) if len(history) else torch.zeros_like(views[:, 0])
        return self.problem.router.forward(client.router[None], pooled.reshape(1, -1)).weights[0]

    def step_own(self, client: Client, touched: torch.Tensor) -> None:
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
