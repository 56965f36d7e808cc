"""The batched local round of linear heads over private item rows, in closed form (PFedRec, FedRAP).

With own rows P_ui the score is s = Q_u . F_i + theta_u . P_ui + b_u, and with R = W * sigmoid(s) - P over the distinct
cells of a batch (algorithm.md section 11)

    dL/dQ = R F,                  uplink += (alpha R)^T Q            as in `folded`
    dL/dtheta += sum_i R_i P_ui,  dL/dP_ui = R_i theta_u

A penalty's derivatives by e_i and P_ui (`Backbone.penalty_slopes`), a mean over the distinct items of the batch, are
added; that by e_i = sum_j w_j F_ji goes on to F_ji times w_j, and to w_j. Imports `folded`, `cells`, `own_rows`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.federation.cells import Cells, distinct_cells
from fedvlr_plugin.federation.clients import BlockState, ClientStore
from fedvlr_plugin.federation.folded import FoldedProgram, LocalGradients
from fedvlr_plugin.federation.histories import HistoryBlock
from fedvlr_plugin.federation.optimizers import step_rows
from fedvlr_plugin.federation.own_rows import OwnBlock, OwnRows
from fedvlr_plugin.federation.ragged import bags, dots, totals
from fedvlr_plugin.federation.samples import BlockSampler, Step
from fedvlr_plugin.federation.setup import LocalProblem
from fedvlr_plugin.federation.sinks import Sink
from fedvlr_plugin.fusion.router import RouterTrace

SCORED_AT_ONCE = 64


class FoldedOwnProgram(FoldedProgram):
    """Runs all local epochs of a block of clients whose backbone is `linear` and has private item rows."""

    def __init__(self, problem: LocalProblem, store: ClientStore, own: OwnRows) -> None:
        super().__init__(problem, store)
        self.own = own

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        sink: Sink,
        round: int,
    ) -> torch.Tensor:
        begin = time.perf_counter()
        steps = list(steps)
        drawn = time.perf_counter()
        self.seconds["sampling"] += drawn - begin
        keys, cells = distinct_cells(steps, len(sampler.slots), self.problem.histories.n_items)
        own = self.own.checkout(sampler.slots, keys)
        grads = self._gradients(sampler, state)
        losses, taken = torch.zeros_like(alpha), torch.zeros_like(alpha)
        for part in cells:
            losses[: part.clients] += self._step(part, state, own, grads, alpha, sink, round)
            taken[: part.clients] += 1
        self.own.checkin(sampler.slots, own)
        self.seconds["local"] += time.perf_counter() - drawn
        self._unpool(sampler, grads, alpha, sink)
        return losses / taken.clamp(min=1)

    def _step(
        self,
        cells: Cells,
        state: BlockState,
        own: OwnBlock,
        grads: LocalGradients,
        alpha: torch.Tensor,
        sink: Sink,
        round: int,
    ) -> torch.Tensor:
        """One local step of the first clients of a block; returns their losses `[clients]`."""
        backbone, width = self.problem.backbone, self.problem.fusion.width
        b, owner = cells.clients, cells.owner
        theta, bias = state.head.values[:b, :width], state.head.values[:b, width]
        trace, q = self._fold(state, theta, None if grads.pooled is None else grads.pooled[:b])
        rows = own.values.index_select(0, cells.at)
        grad_rows = theta.index_select(0, owner)
        scores = dots(q, self.table, cells.indptr, owner, cells.items)
        scores += torch.einsum("kd,kd->k", grad_rows, rows)
        scores += bias.index_select(0, owner)
        r = torch.sigmoid(scores).mul_(cells.weight).sub_(cells.positive)
        grad_q = bags(self.table, cells.indptr, cells.items, r)
        grad_theta = bags(rows, cells.indptr, torch.arange(len(owner), device=owner.device), r)
        grad_bias = totals(r, cells.indptr)
        losses = totals(nnf.softplus(scores).mul_(cells.weight).sub_(scores.mul_(cells.positive)), cells.indptr)
        grad_rows *= r[:, None]
        begin = time.perf_counter()
        weight = alpha.index_select(0, owner)
        sink.add(cells.items, q, owner, r.mul_(weight))
        spent = time.perf_counter() - begin
        self.seconds["uplink"] += spent
        self.seconds["local"] -= spent
        grad_weights = None
        if backbone.has_penalty:
            item, views = self._items(cells, trace)
            slopes = backbone.penalty_slopes(item, rows, round)
            if slopes is None:
                raise RuntimeError("a backbone with a penalty runs folded only if it gives the penalty's slopes")
            scale = (cells.share / width).index_select(0, owner)
            losses += totals(slopes.value.mul_(scale), cells.indptr)
            grad_rows.addcmul_(slopes.own, scale[:, None])
            up = slopes.item.mul_(scale[:, None])
            if trace is None:
                sink.add_rows(cells.items, owner, up.mul_(weight[:, None]))
            else:
                by_view = torch.bmm(views.view(len(owner), -1, width), up[:, :, None])[:, :, 0]
                grad_weights = torch.zeros_like(trace.weights).index_add_(0, owner, by_view)
                mixed = (trace.weights * alpha[:b, None]).index_select(0, owner)
                sink.add_rows(cells.items, owner, (mixed[:, :, None] * up[:, None]).view(len(owner), -1))
        self._descend(state, grads, trace, grad_q, grad_bias, grad_theta, grad_weights)
        self._step_rows(cells, own, rows, grad_rows)
        return losses

    def _items(self, cells: Cells, trace: RouterTrace | None) -> tuple[torch.Tensor, torch.Tensor]:
        """e_i `[D, d]` and the views' rows side by side `[D, Gd]`."""
        views = self.table.index_select(0, cells.items)
        if trace is None:
            return views, views
        each = trace.weights.index_select(0, cells.owner)
        first, *others = views.split(self.problem.fusion.width, dim=1)
        item = first * each[:, :1]
        for number, other in enumerate(others, start=1):
            item.addcmul_(other, each[:, number, None])
        return item, views

    def _step_rows(self, cells: Cells, own: OwnBlock, rows: torch.Tensor, grad: torch.Tensor) -> None:
        """One optimiser step on the own rows of the step's cells; all others are frozen (SparseAdam)."""
        training = self.problem.spec.training
        steps = own.steps[: cells.clients].add_(1)
        moments = None
        if own.moments is not None:
            moments = (own.moments[0].index_select(0, cells.at), own.moments[1].index_select(0, cells.at))
        step_rows(training.client_optimizer, rows, moments, grad, steps, training.client_lr, cells.indptr)
        own.values.index_copy_(0, cells.at, rows)
        for kept, changed in zip(own.moments or (), moments or (), strict=True):
            kept.index_copy_(0, cells.at, changed)

    @torch.no_grad()
    def score(self, broadcast: dict[str, torch.Tensor], history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Scores of all items for a block of clients `[B, n_items]`: one matrix product, and theta . P where rows are."""
        scores = super().score(broadcast, history, state)
        theta = state.head.values[:, : self.problem.fusion.width]
        for begin in range(0, len(scores), SCORED_AT_ONCE):
            part = slice(begin, begin + SCORED_AT_ONCE)
            self._add_own(scores[part], theta[part], history.slots[part])
        return scores

    def _add_own(self, scores: torch.Tensor, theta: torch.Tensor, slots: torch.Tensor) -> None:
        """Adds theta . P `[B, n_items]` of some clients."""
        keys, rows = self.own.touched(slots)
        owner = torch.div(keys, scores.shape[1], rounding_mode="floor")
        scores.view(-1).index_add_(0, keys, torch.einsum("kd,kd->k", theta.index_select(0, owner), rows))
