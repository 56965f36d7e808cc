"""The batched local round of linear heads with private item vectors, in closed form (PFedRec, FedRAP).

With private vectors P_ui the score is s = Q_u . F_i + theta_u . P_ui + b_u, and with R = W * sigmoid(s) - P over the
distinct cells (client, item) of a batch (algorithm.md section 11)

    dL/dQ = R F,                  uplink += (alpha R)^T Q            as in `closed_form`
    dL/dtheta += sum_i R_i P_ui,  dL/dP_ui = R_i theta_u

A penalty's derivatives by e_i and P_ui (`Backbone.penalty_slopes`), a mean over the distinct items of the batch, are
added; that by e_i = sum_j w_j F_ji goes on to F_ji times w_j, and to w_j.

Negatives are drawn with replacement, so a client's samples may name an item twice. Summed up by cell they give the sample
weights W and positive weights P, and each private vector is read and stepped once. Dense blocks find their cells by
counting over all clients x items, sparse ones by sorting; the result is the same, ascending by client and item.

`CompiledPrivateProgram` takes all local steps of a block's clients in one call of a compiled loop, client after client.
It leaves blocks whose uploads are kept, and penalties of another form than `Backbone.penalty_push`, to the other one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.engines.accumulation import Accumulator, SummedUpload
from fedvlr_plugin.engines.base import LocalProblem
from fedvlr_plugin.engines.client_state import BlockState, ClientStore
from fedvlr_plugin.engines.closed_form import ClosedFormProgram, LocalGradients
from fedvlr_plugin.engines.histories import HistoryBlock, bags, dots, indptr_of, totals
from fedvlr_plugin.engines.optimizers import step_rows
from fedvlr_plugin.engines.private_items import PrivateItems, PrivateItemsBlock
from fedvlr_plugin.engines.sampling import BlockSampler, Step
from fedvlr_plugin.fusion.router import RouterTrace

if TYPE_CHECKING:
    from fedvlr_plugin.engines.compiled.private_items import Private, Samples

SCORED_AT_ONCE = 64


class ClosedFormPrivateProgram(ClosedFormProgram):
    """Trains blocks of clients whose backbone is `linear` and has private item vectors; see `LocalProgram`."""

    def __init__(self, problem: LocalProblem, store: ClientStore, own: PrivateItems) -> None:
        super().__init__(problem, store)
        self.own = own

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        upload: Accumulator,
        round: int,
    ) -> torch.Tensor:
        begin = time.perf_counter()
        steps = list(steps)
        drawn = time.perf_counter()
        self.seconds["sampling"] += drawn - begin
        keys, cells = distinct_cells(steps, len(sampler.slots), self.problem.histories.n_items)
        block = self.own.checkout(sampler.slots, keys)
        grads = self._gradients(sampler, state)
        losses, steps_taken = torch.zeros_like(alpha), torch.zeros_like(alpha)
        for part in cells:
            losses[: part.clients] += self._step(part, state, block, grads, alpha, upload, round)
            steps_taken[: part.clients] += 1
        self.own.checkin(sampler.slots, block)
        self.seconds["local"] += time.perf_counter() - drawn
        self._unpool(sampler, grads, alpha, upload)
        return losses / steps_taken.clamp(min=1)

    def _step(
        self,
        cells: Cells,
        state: BlockState,
        block: PrivateItemsBlock,
        grads: LocalGradients,
        alpha: torch.Tensor,
        upload: Accumulator,
        round: int,
    ) -> torch.Tensor:
        """One local step of the first clients of a block; returns their losses `[clients]`."""
        backbone, width = self.problem.backbone, self.problem.fusion.width
        b, owner = cells.clients, cells.owner
        theta, bias = state.head.values[:b, :width], state.head.values[:b, width]
        trace, q = self._client_vectors(state, theta, None if grads.pooled is None else grads.pooled[:b])
        vectors = block.values.index_select(0, cells.places)
        grad_vectors = theta.index_select(0, owner)
        scores = dots(q, self.table, cells.indptr, owner, cells.items)
        scores += torch.einsum("kd,kd->k", grad_vectors, vectors)
        scores += bias.index_select(0, owner)
        r = torch.sigmoid(scores).mul_(cells.weight).sub_(cells.positive)
        grad_q = bags(self.table, cells.indptr, cells.items, r)
        grad_theta = bags(vectors, cells.indptr, torch.arange(len(owner), device=owner.device), r)
        grad_bias = totals(r, cells.indptr)
        losses = totals(nnf.softplus(scores).mul_(cells.weight).sub_(scores.mul_(cells.positive)), cells.indptr)
        grad_vectors *= r[:, None]
        begin = time.perf_counter()
        weight = alpha.index_select(0, owner)
        upload.add(cells.items, q, owner, r.mul_(weight))
        spent = time.perf_counter() - begin
        self.seconds["uplink"] += spent
        self.seconds["local"] -= spent
        grad_weights = None
        if backbone.has_penalty:
            item, views = self._items(cells, trace)
            slopes = backbone.penalty_slopes(item, vectors, round)
            if slopes is None:
                raise RuntimeError(
                    "a backbone with a penalty runs in closed form only if it gives the penalty's slopes"
                )
            scale = (cells.share / width).index_select(0, owner)
            losses += totals(slopes.value.mul_(scale), cells.indptr)
            grad_vectors.addcmul_(slopes.own, scale[:, None])
            up = slopes.item.mul_(scale[:, None])
            if trace is None:
                upload.add_rows(cells.items, owner, up.mul_(weight[:, None]))
            else:
                by_view = torch.bmm(views.view(len(owner), -1, width), up[:, :, None])[:, :, 0]
                grad_weights = torch.zeros_like(trace.weights).index_add_(0, owner, by_view)
                mixed = (trace.weights * alpha[:b, None]).index_select(0, owner)
                upload.add_rows(cells.items, owner, (mixed[:, :, None] * up[:, None]).view(len(owner), -1))
        self._descend(state, grads, trace, grad_q, grad_bias, grad_theta, grad_weights)
        self._step_vectors(cells, block, vectors, grad_vectors)
        return losses

    def _items(self, cells: Cells, trace: RouterTrace | None) -> tuple[torch.Tensor, torch.Tensor]:
        """e_i `[D, d]`, and the item's views side by side `[D, Gd]`."""
        views = self.table.index_select(0, cells.items)
        if trace is None:
            return views, views
        each = trace.weights.index_select(0, cells.owner)
        first, *others = views.split(self.problem.fusion.width, dim=1)
        item = first * each[:, :1]
        for number, other in enumerate(others, start=1):
            item.addcmul_(other, each[:, number, None])
        return item, views

    def _step_vectors(self, cells: Cells, block: PrivateItemsBlock, vectors: torch.Tensor, grad: torch.Tensor) -> None:
        """Step the private item vectors of the cells; all others are frozen (SparseAdam)."""
        training = self.problem.spec.training
        steps = block.steps[: cells.clients].add_(1)
        moments = None
        if block.moments is not None:
            moments = (block.moments[0].index_select(0, cells.places), block.moments[1].index_select(0, cells.places))
        step_rows(training.client_optimizer, vectors, moments, grad, steps, training.client_lr, cells.indptr)
        block.values.index_copy_(0, cells.places, vectors)
        for kept, changed in zip(block.moments or (), moments or (), strict=True):
            kept.index_copy_(0, cells.places, changed)

    @torch.no_grad()
    def score(self, broadcast: Broadcast, history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Score all items for a block of clients, `[B, n_items]`: one matrix product, and theta . P where a client has P."""
        scores = super().score(broadcast, history, state)
        theta = state.head.values[:, : self.problem.fusion.width]
        for begin in range(0, len(scores), SCORED_AT_ONCE):
            part = slice(begin, begin + SCORED_AT_ONCE)
            self._add_private(scores[part], theta[part], history.slots[part])
        return scores

    def _add_private(self, scores: torch.Tensor, theta: torch.Tensor, slots: torch.Tensor) -> None:
        """Add theta . P of some clients to their scores `[B, n_items]`."""
        keys, rows = self.own.touched(slots)
        owner = torch.div(keys, scores.shape[1], rounding_mode="floor")
        scores.view(-1).index_add_(0, keys, torch.einsum("kd,kd->k", theta.index_select(0, owner), rows))


COUNT_UP_TO = 12


class Cells(NamedTuple):
    """The D cells of one step of the first `clients` clients of a block.

    Attributes:
        indptr: `[clients + 1]`, client c's cells are `indptr[c]:indptr[c + 1]`.
        owner, items: `[D]`, client in the block and item of each cell.
        places: `[D]`, place of each cell among the keys of all steps.
        weight: `[D]`, samples at the cell over samples of the client's batch.
        positive: `[D]`, positives among them over the same.
        share: `[clients]`, 1 / number of the client's cells.
    """

    clients: int
    indptr: torch.Tensor
    owner: torch.Tensor
    items: torch.Tensor
    places: torch.Tensor
    weight: torch.Tensor
    positive: torch.Tensor
    share: torch.Tensor


def distinct_cells(steps: Sequence[Step], n_clients: int, n_items: int) -> tuple[torch.Tensor, list[Cells]]:
    """`keys [T]` = client * n_items + item of all cells that the steps touch, ascending, and each step's cells."""
    counted = [_cells(step, n_items) for step in steps]
    if n_clients * n_items <= COUNT_UP_TO * max(len(step.items) for step in steps):
        seen = torch.zeros(n_clients * n_items, dtype=torch.bool, device=counted[0][0].device)
        for distinct, _, _ in counted:
            seen[distinct] = True
        keys = seen.nonzero()[:, 0]
        rank = torch.cumsum(seen, 0)
        places = [rank.index_select(0, distinct).sub_(1) for distinct, _, _ in counted]
    else:
        keys = torch.unique(torch.cat([distinct for distinct, _, _ in counted]))
        places = [torch.searchsorted(keys, distinct) for distinct, _, _ in counted]
    out = []
    for step, (distinct, samples, positives), step_places in zip(steps, counted, places, strict=True):
        owner = torch.div(distinct, n_items, rounding_mode="floor")
        counts = torch.bincount(owner, minlength=step.clients)
        indptr = indptr_of(counts)
        each = step.share.index_select(0, owner)
        share = counts.to(each.dtype).reciprocal()
        out.append(
            Cells(
                step.clients,
                indptr,
                owner,
                distinct - owner * n_items,
                step_places,
                samples * each,
                positives * each,
                share,
            )
        )
    return keys, out


def _cells(step: Step, n_items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step's distinct keys `[D]`, ascending, and how many samples and positives there are at each."""
    if step.labels is None:
        raise RuntimeError("cells are of labelled samples, not of pairs")
    keys = step.cells()
    positive = keys[step.labels > 0]
    if step.clients * n_items <= COUNT_UP_TO * len(keys):
        counts = torch.bincount(keys, minlength=step.clients * n_items)
        distinct = counts.nonzero()[:, 0]
        samples = counts.index_select(0, distinct)
        return distinct, samples, torch.bincount(positive, minlength=len(counts)).index_select(0, distinct)
    distinct, samples = torch.unique(keys, return_counts=True)
    return distinct, samples, torch.bincount(torch.searchsorted(distinct, positive), minlength=len(distinct))


class CompiledPrivateProgram(ClosedFormPrivateProgram):
    """The same by a compiled loop, on a CPU."""

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        upload: Accumulator,
        round: int,
    ) -> torch.Tensor:
        if not isinstance(upload, SummedUpload):
            return super()._train(sampler, state, alpha, steps, upload, round)
        from fedvlr_plugin.engines.compiled import private_items

        begin = time.perf_counter()
        steps = list(steps)
        drawn = time.perf_counter()
        self.seconds["sampling"] += drawn - begin
        samples = _samples(steps, len(sampler.slots))
        keys, indptr = self._touched(samples, len(sampler.slots))
        block = self.own.checkout(sampler.slots, keys, lend=True)
        places = block.rows if block.lent else np.arange(len(keys))
        items = (keys - block.owner * self.problem.histories.n_items).numpy()
        grads = self._gradients(sampler, state)
        training, router = self.problem.spec.training, self.problem.router
        losses, nothing = torch.zeros_like(alpha), alpha.new_empty(len(alpha), 0)
        private_items.train(
            samples,
            private_items.Touched(items, places, indptr.numpy()),
            private_items.Shared(self.table.numpy(), upload.sums.numpy()),
            _private(block.values, block.moments, block.steps),
            _private(state.head.values, state.head.moments, state.head.steps),
            _private(nothing, None, block.steps)
            if state.router is None
            else _private(state.router.values, state.router.moments, state.router.steps),
            0 if router is None else router.hidden,
            (nothing if grads.pooled is None else grads.pooled).numpy(),
            (nothing if grads.grad_pooled is None else grads.grad_pooled).numpy(),
            alpha.numpy(),
            self._penalty(round).numpy(),
            (training.client_lr, state.head.lr, training.client_lr if state.router is None else state.router.lr),
            losses.numpy(),
        )
        self.own.checkin(sampler.slots, block)
        self.seconds["local"] += time.perf_counter() - drawn
        self._unpool(sampler, grads, alpha, upload)
        return losses

    def _touched(self, samples: Samples, n_clients: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`keys [T]` = client * n_items + item of everything that the steps touch, ascending; `indptr [n_clients + 1]`."""
        from fedvlr_plugin.engines.compiled import touched_items

        n_items = self.problem.histories.n_items
        distinct = torch.empty(len(samples.items), dtype=torch.int64)
        indptr = torch.zeros(n_clients + 1, dtype=torch.int64)
        touched_items.touched(samples.items, samples.begins, samples.indptr, n_items, distinct.numpy(), indptr.numpy())
        owner = torch.repeat_interleave(torch.arange(n_clients), torch.diff(indptr))
        return distinct[: len(owner)] + owner * n_items, indptr

    def _penalty(self, round: int) -> torch.Tensor:
        """The constants of the penalty, none without one."""
        push = self.problem.backbone.penalty_push(round) if self.problem.backbone.has_penalty else ()
        if push is None:
            raise RuntimeError("a backbone with a penalty runs compiled only if it gives the penalty's constants")
        return torch.tensor(push, dtype=self.problem.dtype)

    def _add_private(self, scores: torch.Tensor, theta: torch.Tensor, slots: torch.Tensor) -> None:
        from fedvlr_plugin.engines.compiled import touched_items

        items, places, indptr, values = self.own.lend_for_evaluation(slots)
        touched_items.add_scores(theta.contiguous().numpy(), items, places, indptr, values, scores.numpy())


def _samples(steps: list[Step], n_clients: int) -> Samples:
    """The samples of all steps, one after the other."""
    from fedvlr_plugin.engines.compiled import private_items

    labels = [step.labels for step in steps if step.labels is not None]
    if len(labels) < len(steps):
        raise RuntimeError("private rows are trained on labelled samples, not on pairs")
    return private_items.Samples(
        torch.cat([step.items for step in steps]).numpy(),
        torch.cat(labels).numpy(),
        indptr_of(torch.tensor([len(step.items) for step in steps]))[:-1].numpy(),
        torch.stack([_padded(step.indptr, n_clients + 1) for step in steps]).numpy(),
    )


def _padded(indptr: torch.Tensor, length: int) -> torch.Tensor:
    """`indptr`, with its last entry repeated: clients that do not take this step have no samples in it."""
    return torch.cat([indptr, indptr[-1:].expand(length - len(indptr))])


def _private(values: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor] | None, steps: torch.Tensor) -> Private:
    """A group of private parameters, to be changed in place."""
    from fedvlr_plugin.engines.compiled import private_items

    first, second = moments or (values[:0], values[:0])
    return private_items.Private(values.numpy(), first.numpy(), second.numpy(), steps.numpy())
