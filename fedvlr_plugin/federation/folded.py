"""The batched local round of linear heads in closed form: no autograd, no per-sample gather (section 11).

Head and router fold into one vector per client, Q_u = w_u (x) theta_u in R^{Gd}, and the views of an item into
F_i in R^{Gd}. With the weights r of a step (its derivative with respect to the score of each sample),

    s = Q F + b,                     r = (sigmoid(s) - y) / n_batch       (cross-entropy)
    s = Q F_pos - Q F_neg,           r_pos = -sigmoid(-s) / n_pairs = -r_neg   (BPR)
    dL/dQ = R F,                     dL/db = R 1
    dL/dtheta = sum_j w_j dL/dQ_j,   dL/dw_j = theta . dL/dQ_j,  then the router's own backward
    uplink += (alpha R)^T Q          each step, and once per round  (alpha H)^T sum_steps dL/dp

since the pooled history p_u = H_u F is constant within a round. The products are in `products`. Imports it, `clients`,
`samples`, `setup`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from fedvlr_plugin.federation.clients import BlockState, ClientStore
from fedvlr_plugin.federation.histories import HistoryBlock
from fedvlr_plugin.federation.products import StepProducts
from fedvlr_plugin.federation.samples import BlockSampler, Step
from fedvlr_plugin.federation.setup import LocalProblem
from fedvlr_plugin.federation.sinks import Apart, RowSink, Sink, SumSink, touched_keys
from fedvlr_plugin.fusion.router import RouterTrace


@dataclass
class LocalGradients:
    """Room for a block's private gradients, used again each step; `pooled [B, Gd]` and its gradient's sum over steps."""

    head: torch.Tensor
    router: torch.Tensor | None
    pooled: torch.Tensor | None
    grad_pooled: torch.Tensor | None


class FoldedProgram:
    """Runs all local epochs of a block of clients whose backbone is `linear`."""

    def __init__(self, problem: LocalProblem, store: ClientStore) -> None:
        self.problem, self.store = problem, store
        self.seconds = {"sampling": 0.0, "local": 0.0, "uplink": 0.0}

    def prepare(self, broadcast: dict[str, torch.Tensor]) -> None:
        """Takes a round's views in: `table [n_items, G * width]`, and a zeroed sum of the same shape."""
        views = broadcast["views"]
        self.table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        self.sums = torch.zeros_like(self.table)
        self.products = StepProducts(self.table)

    def collect(self) -> dict[str, torch.Tensor]:
        """The summed uplink, in the broadcast's shape."""
        n_views = self.problem.fusion.n_views
        return {"views": self.sums.view(len(self.sums), n_views, -1).transpose(0, 1)}

    def run(self, sampler: BlockSampler, state: BlockState, alpha: torch.Tensor, round: int) -> torch.Tensor:
        """All epochs of one block; changes `state` in place; returns each client's mean loss `[B]`."""
        return self._train(sampler, state, alpha, self._steps(sampler, round), SumSink(self.sums), round)

    def run_apart(self, sampler: BlockSampler, state: BlockState, round: int) -> Apart:
        """The same, with every client's upload (of weight 1) kept apart."""
        steps = list(self._steps(sampler, round))
        n_items = len(self.table)
        keys = touched_keys(sampler, steps, n_items, self.problem.router is not None)
        sink = RowSink(keys, n_items, self.table)
        alpha = self.table.new_ones(len(sampler.slots))
        losses = self._train(sampler, state, alpha, steps, sink, round)
        return Apart(losses, keys, sink.rows, self.table.new_zeros(len(alpha), 0))

    def _steps(self, sampler: BlockSampler, round: int) -> Iterator[Step]:
        for epoch in range(self.problem.spec.training.local_epochs):
            yield from sampler.epoch(round, epoch)

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        sink: Sink,
        round: int,
    ) -> torch.Tensor:
        grads = self._gradients(sampler, state)
        losses, taken = torch.zeros_like(alpha), torch.zeros_like(alpha)
        width = self.problem.fusion.width
        begin, before = time.perf_counter(), self.products.uplink_seconds
        for step in steps:
            drawn = time.perf_counter()
            self.seconds["sampling"] += drawn - begin
            b = step.clients
            theta, bias = state.head.values[:b, :width], state.head.values[:b, width]
            trace, q = self._fold(state, theta, None if grads.pooled is None else grads.pooled[:b])
            taken[:b] += 1
            grad = self.products.step(step, q, bias, alpha[:b], sink)
            losses[:b] += grad.losses
            self._descend(state, grads, trace, grad.q, grad.bias)
            begin = time.perf_counter()
            self.seconds["local"] += begin - drawn
        self.seconds["local"] -= self.products.uplink_seconds - before
        self.seconds["uplink"] += self.products.uplink_seconds - before
        self._unpool(sampler, grads, alpha, sink)
        return losses / taken.clamp(min=1)

    def _gradients(self, sampler: BlockSampler, state: BlockState) -> LocalGradients:
        pooled = sampler.pool(self.table) if self.problem.router is not None else None
        return LocalGradients(
            torch.empty_like(state.head.values),
            None if state.router is None else torch.empty_like(state.router.values),
            pooled,
            None if pooled is None else torch.zeros_like(pooled),
        )

    def _descend(
        self,
        state: BlockState,
        grads: LocalGradients,
        trace: RouterTrace | None,
        grad_q: torch.Tensor,
        grad_bias: torch.Tensor | None,
        grad_theta: torch.Tensor | None = None,
        grad_weights: torch.Tensor | None = None,
    ) -> None:
        """Steps router and head by dL/dQ and dL/db; what else reaches theta and the router's weights is added."""
        b, width, router = len(grad_q), self.problem.fusion.width, self.problem.router
        head = grads.head[:b]
        head[:, width] = 0.0 if grad_bias is None else grad_bias
        if trace is None or router is None or state.router is None or grads.router is None or grads.grad_pooled is None:
            head[:, :width] = grad_q
        else:
            by_view = grad_q.view(b, -1, width)
            head[:, :width] = (trace.weights[:, :, None] * by_view).sum(1)
            grad_w = (by_view * state.head.values[:b, None, :width]).sum(2)
            if grad_weights is not None:
                grad_w += grad_weights
            grads.grad_pooled[:b] += router.backward(state.router.values[:b], trace, grad_w, grads.router[:b])
            self.store.update(state.router, grads.router[:b])
        if grad_theta is not None:
            head[:, :width] += grad_theta
        self.store.update(state.head, head)

    def _unpool(self, sampler: BlockSampler, grads: LocalGradients, alpha: torch.Tensor, sink: Sink) -> None:
        """Sends the pooled histories' gradient, summed over the round's steps, to the items of the histories."""
        if grads.grad_pooled is None:
            return
        begin = time.perf_counter()
        sizes = torch.diff(sampler.history_indptr).clamp(min=1)
        share = (alpha / sizes.to(alpha.dtype))[sampler.history_owner]
        sink.add(sampler.history_items, grads.grad_pooled, sampler.history_owner, share)
        self.seconds["uplink"] += time.perf_counter() - begin

    def _fold(
        self, state: BlockState, theta: torch.Tensor, pooled: torch.Tensor | None
    ) -> tuple[RouterTrace | None, torch.Tensor]:
        """Router's trace and Q `[b, G * width]`."""
        if pooled is None or state.router is None or self.problem.router is None:
            return None, theta.contiguous()
        trace = self.problem.router.forward(state.router.values[: len(theta)], pooled)
        return trace, (trace.weights[:, :, None] * theta[:, None, :]).view(len(theta), -1)

    @torch.no_grad()
    def score(self, broadcast: dict[str, torch.Tensor], history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Scores of all items for a block of clients, one matrix product `[B, n_items]`."""
        views = broadcast["views"]
        self.table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        width = self.problem.fusion.width
        theta = state.head.values[:, :width]
        pooled = history.pool(self.table) if self.problem.router is not None else None
        _, q = self._fold(state, theta, pooled)
        return torch.addmm(state.head.values[:, width:], q, self.table.t())
