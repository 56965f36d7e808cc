"""The batched local round of any backbone: autograd over padded samples, many clients in one graph.

The samples of a block are padded to `[B, S]`; clients stand in order of size, so little is wasted. One backward
pass serves all clients: with L = sum_u a_u L_u, the gradient of what was broadcast is the weighted sum that is
uploaded, and a client's private gradient comes out a_u times too large and is divided by a_u again. Under equal
weights a_u = 1 and the sum is scaled once per round. The pooled history is constant within a round, so its
gradient is collected over the steps and sent through the history once.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.engines.accumulation import Inputs, LeavesPerClient, SeparateUploads, SharedLeaves, touched_keys
from fedvlr_plugin.engines.base import LocalProblem
from fedvlr_plugin.engines.client_state import BlockState, ClientStore
from fedvlr_plugin.engines.histories import HistoryBlock
from fedvlr_plugin.engines.padded_view import JoinedProduct, Layout, PaddedView, Received, by_item, joined_products
from fedvlr_plugin.engines.private_items import PrivateItems, PrivateItemsBlock
from fedvlr_plugin.engines.sampling import BlockSampler, Step

SCORE_BYTES = 32 * 1024**2


class AutogradProgram:
    """Trains blocks of clients of any backbone; see `LocalProgram`."""

    def __init__(self, problem: LocalProblem, store: ClientStore, own: PrivateItems | None) -> None:
        self.problem, self.store, self.own = problem, store, own
        self.seconds = {"sampling": 0.0, "local": 0.0, "uplink": 0.0}
        self.equal = problem.backbone.client_weight == "equal"
        self.alpha = 1.0
        self.received = Broadcast()
        self.products: dict[str, JoinedProduct] = {}
        self.product_leaves: dict[str, JoinedProduct] = {}

    def prepare(self, broadcast: Broadcast) -> None:
        """Take in what the server sends this round."""
        self.received = by_item(broadcast).map(lambda tensor: tensor.clone().requires_grad_())
        with torch.enable_grad():
            joins = self.problem.backbone.joins()
            self.products = joined_products(joins, self.problem.fusion.width, self.received)
        self.product_leaves = {
            name: JoinedProduct(
                table.detach().requires_grad_(), None if views is None else views.detach().requires_grad_()
            )
            for name, (table, views) in self.products.items()
        }
        self.alpha = 1.0

    def collect(self) -> dict[str, torch.Tensor]:
        """The weighted sum of the uploads since `prepare`, by the broadcast's names and shapes."""
        pairs = [
            (product, leaf.grad)
            for name, leaves in self.product_leaves.items()
            for product, leaf in zip(self.products[name].tensors(), leaves.tensors(), strict=True)
            if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([product for product, _ in pairs], [grad for _, grad in pairs])
        sums = self.received.map(lambda x: torch.zeros_like(x) if x.grad is None else x.grad * self.alpha)
        return (sums if sums.views is None else replace(sums, views=sums.views.transpose(0, 1))).named()

    def run(self, sampler: BlockSampler, state: BlockState, alpha: torch.Tensor, round: int) -> torch.Tensor:
        """Run all local epochs of a block; see `LocalProgram`."""
        if self.equal:
            self.alpha = float(alpha[0])
            alpha = torch.ones_like(alpha)
        steps = self._steps(sampler, round)
        return self._train(
            sampler, state, alpha, round, steps, SharedLeaves(Received(self.received, self.product_leaves))
        )

    def run_separately(self, sampler: BlockSampler, state: BlockState, round: int) -> SeparateUploads:
        """Run the same, keeping each client's upload; see `LocalProgram`."""
        steps = self._steps(sampler, round)
        keys = touched_keys(sampler, steps, self.problem.histories.n_items, state.router is not None)
        inputs = LeavesPerClient(self.received, keys, self.problem.histories.n_items, len(sampler.slots))
        alpha = state.head.values.new_ones(len(sampler.slots))
        losses = self._train(sampler, state, alpha, round, steps, inputs)
        return SeparateUploads(losses, keys, *inputs.grads())

    def _steps(self, sampler: BlockSampler, round: int) -> list[Step]:
        begin = time.perf_counter()
        epochs = range(self.problem.spec.training.local_epochs)
        steps = [step for epoch in epochs for step in sampler.epoch(round, epoch)]
        self.seconds["sampling"] += time.perf_counter() - begin
        return steps

    def _train(
        self,
        sampler: BlockSampler,
        state: BlockState,
        alpha: torch.Tensor,
        round: int,
        steps: list[Step],
        inputs: Inputs,
    ) -> torch.Tensor:
        begin = time.perf_counter()
        items = None if self.own is None else self.own.checkout(sampler.slots, self._keys(steps))
        pooled = self._pooled(sampler) if state.router is not None else None
        losses = torch.zeros_like(alpha)
        steps_taken = torch.zeros_like(alpha)
        for step in steps:
            losses[: step.clients] += self._step(pooled, state, items, step, alpha[: step.clients], round, inputs)
            steps_taken[: step.clients] += 1
        trained = time.perf_counter()
        if self.own is not None and items is not None:
            self.own.checkin(sampler.slots, items)
        if pooled is not None and pooled.grad is not None:
            inputs.unpool(sampler, pooled.grad)
        self.seconds["local"] += trained - begin
        self.seconds["uplink"] += time.perf_counter() - trained
        return losses / steps_taken.clamp(min=1)

    def _keys(self, steps: list[Step]) -> torch.Tensor:
        """Client in the block * n_items + item of all pairs that the round will touch, ascending and distinct."""
        n_items = self.problem.histories.n_items
        keys: torch.Tensor = torch.unique(torch.cat([step.owner * n_items + step.items for step in steps]))
        return keys

    def _pooled(self, block: HistoryBlock) -> torch.Tensor:
        """The pooled histories p_u, as a leaf `[B, Gd]` that collects its gradient over the steps."""
        views = self.received.item_views().detach()
        pooled: torch.Tensor = block.pool(views.view(len(views), -1))
        pooled.requires_grad = True
        return pooled

    @torch.enable_grad()
    def _step(
        self,
        pooled: torch.Tensor | None,
        state: BlockState,
        items: PrivateItemsBlock | None,
        step: Step,
        weight: torch.Tensor,
        round: int,
        inputs: Inputs,
    ) -> torch.Tensor:
        """Take one local step of the first clients of a block; return their losses `[clients]`."""
        problem, b = self.problem, step.clients
        # .data and not detach(): autograd counts changes in place, and blocks side by side must not share a count
        private = [g.values[:b].data.requires_grad_() for g in (state.head, state.router) if g is not None]
        mixture = None
        if pooled is not None and problem.router is not None:
            mixture = problem.router.forward(private[1], pooled[:b]).weights
        head = self.store.shape.split(private[0])
        layout = Layout.from_ragged(step.indptr, step.owner)
        private_items = padded_items = touched = None
        if items is not None:
            keys = step.owner * problem.histories.n_items + step.items
            distinct, place = torch.unique(keys, return_inverse=True)
            touched = torch.searchsorted(items.keys, distinct)
            private_items = items.values[touched].requires_grad_()
            padded_items = layout.pad(private_items.index_select(0, place))
        rows = layout.pad(inputs.rows(step.owner, step.items))
        view = PaddedView(inputs.first(b), head, mixture, rows, layout.mask, padded_items)
        losses = self._data_loss(view, layout, step, inputs)
        penalty = self._penalty(view, step, items, touched, private_items, round, inputs)
        if penalty is not None:
            losses = losses + penalty
        optional = [leaf for leaf in (private_items, pooled) if leaf is not None]
        leaves = [*private, *optional]
        (losses * weight).sum().backward(inputs=[*leaves, *inputs.leaves()])
        for group, leaf in zip([g for g in (state.head, state.router) if g is not None], private, strict=True):
            if leaf.grad is not None:
                self.store.update(group, leaf.grad / weight[:, None])
        if self.own is not None and items is not None and touched is not None and private_items is not None:
            items.steps[:b] += 1
            if private_items.grad is not None:
                self.own.update(items, touched, private_items.grad / weight[items.owner[touched]][:, None])
        return losses.detach()

    def _data_loss(self, view: PaddedView, layout: Layout, step: Step, inputs: Inputs) -> torch.Tensor:
        """Batch-mean cross-entropy, or BPR over pairs, of each client `[clients]`."""
        scores = self.problem.backbone.logits(view)
        if step.positives is not None:
            better = self.problem.backbone.logits(view.at(layout.pad(inputs.rows(step.owner, step.positives))))
            each = nnf.softplus(scores - better)
        elif step.labels is not None:
            each = nnf.binary_cross_entropy_with_logits(scores, layout.pad(step.labels), reduction="none")
        else:
            raise RuntimeError("a step has labels or pairs")
        return torch.where(layout.mask, each, 0.0).sum(1) * step.share

    def _penalty(
        self,
        view: PaddedView,
        step: Step,
        items: PrivateItemsBlock | None,
        touched: torch.Tensor | None,
        private_items: torch.Tensor | None,
        round: int,
        inputs: Inputs,
    ) -> torch.Tensor | None:
        """The backbone's regulariser over the distinct items of each client's batch, `[clients]` or None."""
        backbone = self.problem.backbone
        if not backbone.has_penalty:
            return None
        n_items = self.problem.histories.n_items
        if items is not None and touched is not None and private_items is not None:
            keys = items.keys[touched]
        else:
            keys = torch.unique(step.owner * n_items + step.items)
        owner = keys // n_items
        indptr = torch.searchsorted(owner, torch.arange(step.clients + 1, device=owner.device))
        layout = Layout.from_ragged(indptr, owner)
        padded = None if private_items is None else layout.pad(private_items)
        return backbone.penalty(view.at(layout.pad(inputs.rows(owner, keys % n_items)), layout.mask, padded), round)

    @torch.no_grad()
    def score(self, broadcast: Broadcast, history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Score all items for some clients, `[B, n_items]`, a few clients at a time."""
        received = Received(by_item(broadcast), {})
        mixture = None
        if self.problem.router is not None and state.router is not None:
            views = received.broadcast.item_views()
            mixture = self.problem.router.forward(state.router.values, history.pool(views.view(len(views), -1))).weights
        n_items = self.problem.histories.n_items
        wide = n_items * self.problem.fusion.width * 4 * state.head.values.element_size()
        out = torch.empty(len(history.slots), n_items, dtype=self.problem.dtype, device=self.problem.device)
        for rows in torch.arange(len(out), device=out.device).split(max(1, SCORE_BYTES // wide)):
            head = self.store.shape.split(state.head.values[rows])
            private_items = None if self.own is None else self.own.dense(history.slots[rows])
            weights = None if mixture is None else mixture[rows]
            out[rows] = self.problem.backbone.logits(PaddedView(received, head, weights, None, None, private_items))
        return out
