"""The products of a local step of linear heads: from Q and biases to losses, dL/dQ, dL/db and the uplink (see `folded`).

Three ways, chosen for speed only: the residual matrix R is built and multiplied whole (`_whole`), products are sampled
(`_sampled`, always for pairs and where uploads are kept apart), or the compiled loop goes over the samples of all but a
step's fullest clients (`_compiled`). Imports `loops`, `ragged`, `samples`, `sinks`; `compiled` where `loops` says so.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.federation.loops import compiled_on
from fedvlr_plugin.federation.ragged import DENSE_UNTIL, bags, dots, totals
from fedvlr_plugin.federation.samples import Step
from fedvlr_plugin.federation.sinks import Sink, SumSink

FEWEST = 4  # clients that are worth whole products beside the compiled loop


class StepGradients(NamedTuple):
    """Of the b clients of a step: mean losses `[b]`, dL/dQ `[b, Gd]`, dL/db `[b]` (none with pairs)."""

    losses: torch.Tensor
    q: torch.Tensor
    bias: torch.Tensor | None


class StepProducts:
    """Steps over a round's views `table [n_items, Gd]`; adds the seconds it spends on the uplink to `uplink_seconds`.

    What the compiled loop does of the uplink, in the same pass as all else, is not in there.
    """

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.uplink_seconds = table, 0.0
        self.compiled = compiled_on(table.device)

    def step(self, step: Step, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, sink: Sink) -> StepGradients:
        """Gradients of one step of clients with `q [b, Gd]`, `bias [b]`; the sink receives (alpha R)^T Q."""
        if step.labels is None or not isinstance(sink, SumSink):
            return self._sampled(step, q, bias, alpha, sink)
        if self.compiled:
            return self._compiled(step, step.labels, q, bias, alpha, sink)
        if DENSE_UNTIL * len(step.items) > len(q) * len(self.table):
            return self._whole(step, step.labels, q, bias, alpha, sink)
        return self._sampled(step, q, bias, alpha, sink)

    def _whole(
        self, step: Step, labels: torch.Tensor, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, sink: SumSink
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
        self._upload(sink, residual, q * (alpha * share)[:, None])
        return StepGradients(totals(each, step.indptr).mul_(share), grad_q, grad_bias)

    def _compiled(
        self, step: Step, labels: torch.Tensor, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, sink: SumSink
    ) -> StepGradients:
        """The fullest clients by whole products around a compiled loop, the others by a compiled loop alone."""
        from fedvlr_plugin.federation.compiled import linear

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
            self._upload(sink, residual, q[:full] * alpha[:full, None])
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
                sink.sums.numpy(),
                losses.numpy()[full:],
                grad_q.numpy()[full:],
                grad_bias.numpy()[full:],
            )
        return StepGradients(losses, grad_q, grad_bias)

    def _sampled(
        self, step: Step, q: torch.Tensor, bias: torch.Tensor, alpha: torch.Tensor, sink: Sink
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
            sink.add(items, q, step.owner, weight * r)
            self.uplink_seconds += time.perf_counter() - begin
        return StepGradients(totals(each * share, step.indptr), grad_q, grad_bias)

    def _upload(self, sink: SumSink, residual: torch.Tensor, q: torch.Tensor) -> None:
        begin = time.perf_counter()
        sink.sums.addmm_(residual.t(), q)
        self.uplink_seconds += time.perf_counter() - begin
