"""`folded_own` with the compiled loops: all local steps of a block's clients in one call, client after client.

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
from fedvlr_plugin.federation.folded_own import FoldedOwnProgram
from fedvlr_plugin.federation.ragged import indptr_of
from fedvlr_plugin.federation.samples import BlockSampler, Step
from fedvlr_plugin.federation.sinks import Sink, SumSink

if TYPE_CHECKING:
    from fedvlr_plugin.federation.compiled.own_round import Private, Samples


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
        from fedvlr_plugin.federation.compiled import own, own_round

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
        own_round.train(
            samples,
            own_round.Touched(items, places, indptr.numpy()),
            own.Shared(self.table.numpy(), sink.sums.numpy()),
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
        self._unpool(sampler, grads, alpha, sink)
        return losses

    def _touched(self, samples: Samples, n_clients: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`keys [T]` = client * n_items + item of everything that the steps touch, ascending; `indptr [n_clients + 1]`."""
        from fedvlr_plugin.federation.compiled import cells

        n_items = self.problem.histories.n_items
        distinct = torch.empty(len(samples.items), dtype=torch.int64)
        indptr = torch.zeros(n_clients + 1, dtype=torch.int64)
        cells.touched(samples.items, samples.begins, samples.indptr, n_items, distinct.numpy(), indptr.numpy())
        owner = torch.repeat_interleave(torch.arange(n_clients), torch.diff(indptr))
        return distinct[: len(owner)] + owner * n_items, indptr

    def _penalty(self, round: int) -> torch.Tensor:
        """The constants of the penalty, none without one."""
        push = self.problem.backbone.penalty_push(round) if self.problem.backbone.has_penalty else ()
        if push is None:
            raise RuntimeError("a backbone with a penalty runs compiled only if it gives the penalty's constants")
        return torch.tensor(push, dtype=self.problem.dtype)

    def _add_own(self, scores: torch.Tensor, theta: torch.Tensor, slots: torch.Tensor) -> None:
        from fedvlr_plugin.federation.compiled import cells

        items, places, indptr, values = self.own.lend_for_evaluation(slots)
        cells.add_scores(theta.contiguous().numpy(), items, places, indptr, values, scores.numpy())


def _samples(steps: list[Step], n_clients: int) -> Samples:
    """The samples of all steps, one after the other."""
    from fedvlr_plugin.federation.compiled import own_round

    labels = [step.labels for step in steps if step.labels is not None]
    if len(labels) < len(steps):
        raise RuntimeError("private rows are trained on labelled samples, not on pairs")
    return own_round.Samples(
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
    from fedvlr_plugin.federation.compiled import own_round

    first, second = moments or (values[:0], values[:0])
    return own_round.Private(values.numpy(), first.numpy(), second.numpy(), steps.numpy())
