"""The batched local round of linear heads in closed form: no autograd, no copy of a vector for each sample (section 11).

Head and router make one vector per client, Q_u = w_u (x) theta_u in R^{Gd}, and the views of an item F_i in R^{Gd}. With the weights r of a step (its derivative with respect to the score of each sample),

    s = Q F + b,                     r = (sigmoid(s) - y) / n_batch       (cross-entropy)
    s = Q F_pos - Q F_neg,           r_pos = -sigmoid(-s) / n_pairs = -r_neg   (BPR)
    dL/dQ = R F,                     dL/db = R 1
    dL/dtheta = sum_j w_j dL/dQ_j,   dL/dw_j = theta . dL/dQ_j,  then the router's own backward
    uplink += (alpha R)^T Q          each step, and once per round  (alpha H)^T sum_steps dL/dp

since the pooled history p_u = H_u F is constant within a round.

`LinearStep` computes a step's products in one of three ways, chosen for speed only: the residual matrix R is built and
multiplied whole (`_whole`), products are sampled (`_sampled`, always for pairs and where each upload is kept), or the
compiled loop goes over the samples of all but a step's fullest clients (`_compiled`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.engines.accumulation import Accumulator, SeparateUploads, SummedUpload, UploadPerClient, touched_keys
from fedvlr_plugin.engines.base import LocalProblem
from fedvlr_plugin.engines.client_state import BlockState, ClientStore
from fedvlr_plugin.engines.compiled.available import compiled_on
from fedvlr_plugin.engines.histories import DENSE_UNTIL, HistoryBlock, bags, dots, totals
from fedvlr_plugin.engines.sampling import BlockSampler, Step
from fedvlr_plugin.fusion.router import RouterTrace


@dataclass
class LocalGradients:
    """A block's private gradients, in memory that is used again each step.

    Attributes:
        head: `[B, P]`. router: `[B, R]`, None without one.
        pooled: pooled histories `[B, Gd]`, None without a router.
        grad_pooled: the sum over steps of the gradient by them.
    """

    head: torch.Tensor
    router: torch.Tensor | None
    pooled: torch.Tensor | None
    grad_pooled: torch.Tensor | None


class ClosedFormProgram:
    """Trains blocks of clients whose backbone is `linear`; see `LocalProgram`."""

    def __init__(self, problem: LocalProblem, store: ClientStore) -> None:
        self.problem, self.store = problem, store
        self.seconds = {"sampling": 0.0, "local": 0.0, "uplink": 0.0}

    def prepare(self, broadcast: Broadcast) -> None:
        """Take a round's views in as `table [n_items, G * width]`, and set the sum of the same shape to zero."""
        views = broadcast.item_views()
        self.table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        self.sums = torch.zeros_like(self.table)
        self.products = LinearStep(self.table)

    def collect(self) -> dict[str, torch.Tensor]:
        """The weighted sum of the uploads since `prepare`, by the broadcast's name and shape."""
        n_views = self.problem.fusion.n_views
        return Broadcast(self.sums.view(len(self.sums), n_views, -1).transpose(0, 1)).named()

    def run(self, sampler: BlockSampler, state: BlockState, alpha: torch.Tensor, round: int) -> torch.Tensor:
        """Run all local epochs of a block; see `LocalProgram`."""
        return self._train(sampler, state, alpha, self._steps(sampler, round), SummedUpload(self.sums), round)

    def run_separately(self, sampler: BlockSampler, state: BlockState, round: int) -> SeparateUploads:
        """Run the same, keeping each client's upload; see `LocalProgram`."""
        steps = list(self._steps(sampler, round))
        n_items = len(self.table)
        keys = touched_keys(sampler, steps, n_items, self.problem.router is not None)
        upload = UploadPerClient(keys, n_items, self.table)
        alpha = self.table.new_ones(len(sampler.slots))
        losses = self._train(sampler, state, alpha, steps, upload, round)
        return SeparateUploads(losses, keys, upload.rows, self.table.new_zeros(len(alpha), 0))

    def _steps(self, sampler: BlockSampler, round: int) -> Iterator[Step]:
        for epoch in range(self.problem.spec.training.local_epochs):
            yield from sampler.epoch(round, epoch)

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        upload: Accumulator,
        round: int,
    ) -> torch.Tensor:
        grads = self._gradients(sampler, state)
        losses, steps_taken = torch.zeros_like(alpha), torch.zeros_like(alpha)
        width = self.problem.fusion.width
        begin, before = time.perf_counter(), self.products.uplink_seconds
        for step in steps:
            drawn = time.perf_counter()
            self.seconds["sampling"] += drawn - begin
            b = step.clients
            theta, bias = state.head.values[:b, :width], state.head.values[:b, width]
            trace, q = self._client_vectors(state, theta, None if grads.pooled is None else grads.pooled[:b])
            steps_taken[:b] += 1
            grad = self.products.step(step, q, bias, alpha[:b], upload)
            losses[:b] += grad.losses
            self._descend(state, grads, trace, grad.q, grad.bias)
            begin = time.perf_counter()
            self.seconds["local"] += begin - drawn
        self.seconds["local"] -= self.products.uplink_seconds - before
        self.seconds["uplink"] += self.products.uplink_seconds - before
        self._unpool(sampler, grads, alpha, upload)
        return losses / steps_taken.clamp(min=1)

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
        """Step router and head by dL/dQ and dL/db; other gradients of theta and of the router's weights are added."""
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

    def _unpool(self, sampler: BlockSampler, grads: LocalGradients, alpha: torch.Tensor, upload: Accumulator) -> None:
        """Add the gradient by the pooled histories, summed over the round's steps, to that of the histories' items."""
        if grads.grad_pooled is None:
            return
        begin = time.perf_counter()
        sizes = torch.diff(sampler.history_indptr).clamp(min=1)
        share = (alpha / sizes.to(alpha.dtype))[sampler.history_owner]
        upload.add(sampler.history_items, grads.grad_pooled, sampler.history_owner, share)
        self.seconds["uplink"] += time.perf_counter() - begin

    def _client_vectors(
        self, state: BlockState, theta: torch.Tensor, pooled: torch.Tensor | None
    ) -> tuple[RouterTrace | None, torch.Tensor]:
        """The router's trace and Q `[b, G * width]`."""
        if pooled is None or state.router is None or self.problem.router is None:
            return None, theta.contiguous()
        trace = self.problem.router.forward(state.router.values[: len(theta)], pooled)
        return trace, (trace.weights[:, :, None] * theta[:, None, :]).view(len(theta), -1)

    @torch.no_grad()
    def score(self, broadcast: Broadcast, history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Score all items for a block of clients, `[B, n_items]`: one matrix product."""
        views = broadcast.item_views()
        self.table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        width = self.problem.fusion.width
        theta = state.head.values[:, :width]
        pooled = history.pool(self.table) if self.problem.router is not None else None
        _, q = self._client_vectors(state, theta, pooled)
        return torch.addmm(state.head.values[:, width:], q, self.table.t())


FEWEST = 4  # clients that are worth whole products beside the compiled loop


class StepGradients(NamedTuple):
    """Of the b clients of a step: mean losses `[b]`, dL/dQ `[b, Gd]`, dL/db `[b]` (none with pairs)."""

    losses: torch.Tensor
    q: torch.Tensor
    bias: torch.Tensor | None


class LinearStep:
    """The products of local steps: from Q and biases to losses, dL/dQ, dL/db and the upload.

    Args:
        table: a round's views, `[n_items, Gd]`.

    Attributes:
        uplink_seconds: wall seconds spent on uploads, without those of the compiled loop, which does all in one pass.
    """

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.uplink_seconds = table, 0.0
        self.compiled = compiled_on(table.device)

    def step(
        self, step: Step, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, upload: Accumulator
    ) -> StepGradients:
        """Gradients of one step of clients with `q [b, Gd]`, `bias [b]`; (alpha R)^T Q is added to the upload."""
        if step.labels is None or not isinstance(upload, SummedUpload):
            return self._sampled(step, q, bias, alpha, upload)
        if self.compiled:
            return self._compiled(step, step.labels, q, bias, alpha, upload)
        if DENSE_UNTIL * len(step.items) > len(q) * len(self.table):
            return self._whole(step, step.labels, q, bias, alpha, upload)
        return self._sampled(step, q, bias, alpha, upload)

    def _whole(
        self,
        step: Step,
        labels: torch.Tensor,
        q: torch.Tensor,
        bias: torch.Tensor,
        alpha: torch.Tensor,
        upload: SummedUpload,
    ) -> StepGradients:
        """By whole products: the residual R `[b, n_items]` is built and used three times."""
        cells = step.cells()
        scores = torch.addmm(bias[:, None], q, self.table.t()).view(-1).index_select(0, cells)
        positive = torch.sigmoid(scores)
        r = torch.sub(positive, labels)
        # softplus(s) = relu(s) - log sigmoid(|s|), and sigmoid(|s|) is there already
        each = torch.maximum(positive, 1.0 - positive).log_().neg_()
        each += scores.relu().addcmul_(scores, labels, value=-1.0)
        share = step.share
        residual = q.new_zeros(len(q) * len(self.table)).scatter_add_(0, cells, r).view(len(q), -1)
        grad_q = (residual @ self.table).mul_(share[:, None])
        grad_bias = residual.sum(1).mul_(share)
        self._upload(upload, residual, q * (alpha * share)[:, None])
        return StepGradients(totals(each, step.indptr).mul_(share), grad_q, grad_bias)

    def _compiled(
        self,
        step: Step,
        labels: torch.Tensor,
        q: torch.Tensor,
        bias: torch.Tensor,
        alpha: torch.Tensor,
        upload: SummedUpload,
    ) -> StepGradients:
        """The fullest clients by whole products around a compiled loop, the others by a compiled loop alone."""
        from fedvlr_plugin.engines.compiled import linear

        b = len(q)
        full = step.full if step.full >= FEWEST else 0
        losses, grad_q, grad_bias = q.new_empty(b), torch.empty_like(q), q.new_empty(b)
        items, marks, indptr = step.items.numpy(), labels.numpy(), step.indptr.numpy()
        share, bias = step.share.numpy(), bias.contiguous()
        if full:
            scores = torch.addmm(bias[:full, None], q[:full], self.table.t())
            residual = torch.empty_like(scores)
            linear.residuals(
                scores.numpy(),
                items,
                marks,
                indptr[: full + 1],
                share[:full],
                losses.numpy()[:full],
                grad_bias.numpy()[:full],
                residual.numpy(),
            )
            torch.mm(residual, self.table, out=grad_q[:full])
            self._upload(upload, residual, q[:full] * alpha[:full, None])
        if full < b:
            linear.sampled(
                q.numpy()[full:],
                bias.numpy()[full:],
                self.table.numpy(),
                items,
                marks,
                indptr[full:],
                share[full:],
                alpha.numpy()[full:],
                upload.sums.numpy(),
                losses.numpy()[full:],
                grad_q.numpy()[full:],
                grad_bias.numpy()[full:],
            )
        return StepGradients(losses, grad_q, grad_bias)

    def _sampled(
        self, step: Step, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, upload: Accumulator
    ) -> StepGradients:
        """By sampled products, each of a step's (item, r) once: dL/dQ = R F, uplink (alpha R)^T Q."""
        share = step.share.index_select(0, step.owner)
        scores = dots(q, self.table, step.indptr, step.owner, step.items)
        grad_bias: torch.Tensor | None = None
        if step.positives is not None:
            margin = dots(q, self.table, step.indptr, step.owner, step.positives) - scores
            r = torch.sigmoid(-margin) * share
            each = -nnf.logsigmoid(margin)
            samples = [(step.items, r), (step.positives, -r)]
        elif step.labels is not None:
            scores = scores + bias.index_select(0, step.owner)
            r = (torch.sigmoid(scores) - step.labels) * share
            each = nnf.softplus(scores) - step.labels * scores
            samples, grad_bias = [(step.items, r)], totals(r, step.indptr)
        else:
            raise RuntimeError("a step has labels or pairs")
        weight = alpha.index_select(0, step.owner)
        grad_q = torch.zeros_like(q)
        for items, r in samples:
            grad_q += bags(self.table, step.indptr, items, r)
            begin = time.perf_counter()
            upload.add(items, q, step.owner, weight * r)
            self.uplink_seconds += time.perf_counter() - begin
        return StepGradients(totals(each * share, step.indptr), grad_q, grad_bias)

    def _upload(self, upload: SummedUpload, residual: torch.Tensor, q: torch.Tensor) -> None:
        begin = time.perf_counter()
        upload.sums.addmm_(residual.t(), q)
        self.uplink_seconds += time.perf_counter() - begin
