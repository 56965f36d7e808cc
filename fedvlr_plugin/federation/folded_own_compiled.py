"""`folded_own` with the compiled loops: a local step of all clients of a block in one pass over their samples.

Uploads that are kept apart, and penalties of another form than `Backbone.penalty_push`, are left to `folded_own`.
Imports it, `loops`, `own_rows`, `samples`, `sinks`, and `compiled` when it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedvlr_plugin.federation.clients import BlockState
from fedvlr_plugin.federation.folded import LocalGradients
from fedvlr_plugin.federation.folded_own import FoldedOwnProgram
from fedvlr_plugin.federation.optimizers import BETA1, BETA2, EPS
from fedvlr_plugin.federation.own_rows import OwnBlock
from fedvlr_plugin.federation.ragged import indptr_of
from fedvlr_plugin.federation.samples import BlockSampler, Step
from fedvlr_plugin.federation.sinks import Sink, SumSink

if TYPE_CHECKING:
    from fedvlr_plugin.federation.compiled.own import Rows


class CompiledOwnProgram(FoldedOwnProgram):
    """Runs all local epochs of a block of clients whose backbone is `linear` and has private item rows, on a CPU."""

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        steps: Iterable[Step],
        sink: Sink,
        round: int,
    ) -> torch.Tensor:
        if not isinstance(sink, SumSink):
            return super()._train(sampler, state, alpha, steps, sink, round)
        begin = time.perf_counter()
        steps = list(steps)
        drawn = time.perf_counter()
        self.seconds["sampling"] += drawn - begin
        keys, indptr = self._touched(steps, len(sampler.slots))
        own = self.own.checkout(sampler.slots, keys, lend=True)
        items = keys - own.owner * self.problem.histories.n_items
        penalty = self._penalty(round)
        grads = self._gradients(sampler, state)
        losses, taken = torch.zeros_like(alpha), torch.zeros_like(alpha)
        for step in steps:
            losses[: step.clients] += self._compiled_step(step, state, own, items, indptr, grads, alpha, sink, penalty)
            taken[: step.clients] += 1
        self.own.checkin(sampler.slots, own)
        self.seconds["local"] += time.perf_counter() - drawn
        self._unpool(sampler, grads, alpha, sink)
        return losses / taken.clamp(min=1)

    def _touched(self, steps: list[Step], n_clients: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`keys [T]` = client * n_items + item of everything that the steps touch, ascending; `indptr [n_clients + 1]`."""
        from fedvlr_plugin.federation.compiled import own as compiled

        n_items = self.problem.histories.n_items
        items = torch.cat([step.items for step in steps])
        begins = indptr_of(torch.tensor([len(step.items) for step in steps]))[:-1]
        each = torch.stack([_padded(step.indptr, n_clients + 1) for step in steps])
        distinct, indptr = torch.empty_like(items), torch.zeros(n_clients + 1, dtype=torch.int64)
        compiled.touched(items.numpy(), begins.numpy(), each.numpy(), n_items, distinct.numpy(), indptr.numpy())
        owner = torch.repeat_interleave(torch.arange(n_clients), torch.diff(indptr))
        return distinct[: len(owner)] + owner * n_items, indptr

    def _penalty(self, round: int) -> torch.Tensor:
        """The constants of the penalty, none without one."""
        push = self.problem.backbone.penalty_push(round) if self.problem.backbone.has_penalty else ()
        if push is None:
            raise RuntimeError("a backbone with a penalty runs compiled only if it gives the penalty's constants")
        return torch.tensor(push, dtype=self.problem.dtype)

    def _compiled_step(
        self,
        step: Step,
        state: BlockState,
        own: OwnBlock,
        items: torch.Tensor,
        indptr: torch.Tensor,
        grads: LocalGradients,
        alpha: torch.Tensor,
        sink: SumSink,
        penalty: torch.Tensor,
    ) -> torch.Tensor:
        """One local step of the first clients of a block; returns their losses `[clients]`."""
        from fedvlr_plugin.federation.compiled import own as compiled

        if step.labels is None:
            raise RuntimeError("private rows are trained on labelled samples, not on pairs")
        width, b = self.problem.fusion.width, step.clients
        head = state.head.values[:b]
        trace, q = self._fold(state, head[:, :width], None if grads.pooled is None else grads.pooled[:b])
        weights = q.new_empty(b, 0) if trace is None else trace.weights
        theta, bias = head[:, :width].contiguous(), head[:, width].contiguous()
        losses, grad_q, grad_bias = q.new_empty(b), torch.empty_like(q), torch.empty_like(bias)
        grad_theta, grad_weights = torch.empty_like(theta), torch.empty_like(weights)
        compiled.step(
            compiled.Samples(
                step.items.numpy(), step.labels.numpy(), step.indptr.numpy(), step.share.numpy(), alpha.numpy()
            ),
            compiled.Shared(self.table.numpy(), sink.sums.numpy()),
            compiled.Heads(q.numpy(), theta.numpy(), bias.numpy(), weights.contiguous().numpy()),
            self._rows(own, items, indptr, b),
            penalty.numpy(),
            compiled.Gradients(
                losses.numpy(), grad_q.numpy(), grad_bias.numpy(), grad_theta.numpy(), grad_weights.numpy()
            ),
        )
        self._descend(state, grads, trace, grad_q, grad_bias, grad_theta, None if trace is None else grad_weights)
        return losses

    def _rows(self, own: OwnBlock, items: torch.Tensor, indptr: torch.Tensor, clients: int) -> Rows:
        """The block's private rows and the constants of this step of the first clients, which is counted here."""
        from fedvlr_plugin.federation.compiled import own as compiled

        lr = self.problem.spec.training.client_lr
        age = own.steps[:clients].add_(1).double()
        constants = torch.tensor([BETA1, 1 - BETA1, BETA2, 1 - BETA2, EPS, lr], dtype=own.values.dtype)
        if own.moments is None:
            first = second = own.values.new_empty(0, own.values.shape[1])
            rates = own.values.new_empty(clients, 0)
        else:
            first, second = own.moments
            rates = torch.stack([lr / (1 - BETA1**age), torch.sqrt(1 - BETA2**age)], dim=1).to(own.values.dtype)
        return compiled.Rows(
            items.numpy(),
            own.rows if own.lent else np.arange(len(items)),
            indptr.numpy(),
            own.values.numpy(),
            first.numpy(),
            second.numpy(),
            rates.numpy(),
            constants.numpy(),
        )

    def _add_own(self, scores: torch.Tensor, theta: torch.Tensor, slots: torch.Tensor) -> None:
        from fedvlr_plugin.federation.compiled import own as compiled

        items, places, indptr, values = self.own.lend_for_evaluation(slots)
        compiled.add_scores(theta.contiguous().numpy(), items, places, indptr, values, scores.numpy())


def _padded(indptr: torch.Tensor, length: int) -> torch.Tensor:
    """`indptr`, with its last entry repeated: clients that do not take this step have no samples in it."""
    return torch.cat([indptr, indptr[-1:].expand(length - len(indptr))])
