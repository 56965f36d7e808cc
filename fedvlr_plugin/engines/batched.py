"""The batched engine: all clients of a block as one tensor program, block after block.

All local epochs of a block run before the next block starts, so that its private state stays in cache. Blocks are slices
of the slot order (largest clients first); their size follows from the bytes of private state and the number of samples,
never from the number of threads. Several blocks run side by side, see `workers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.uploads import Collect, RunningSum, UploadShape
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.engines.base import LocalProblem, Uplink
from fedvlr_plugin.engines.client_state import BlockState, ClientStore
from fedvlr_plugin.engines.histories import HistoryBlock
from fedvlr_plugin.engines.per_client import run_block_separately
from fedvlr_plugin.engines.private_items import PrivateItems
from fedvlr_plugin.engines.sampling import BlockSampler
from fedvlr_plugin.engines.workers import TrainedBlocks, Workers
from fedvlr_plugin.errors import ConfigError

STATE_BYTES_PER_BLOCK = 12 * 1024**2
SAMPLES_PER_BLOCK = {
    "closed_form": 65_536,
    "closed_form_private": 4_096,
    "compiled_private": 8_192,
    "autograd": 16_384,
    "separate": 8_192,
}
ON_A_GPU = 16  # times as much at once: there is no cache to stay in, and each operation costs a launch


class BatchedEngine:
    """See the module.

    Args:
        problem: the clients' side of the run.
        execution: block size and memory budget.

    Attributes:
        store: heads and routers of all clients.
        own: their private item vectors, None where the backbone has none.
    """

    def __init__(self, problem: LocalProblem, execution: ExecutionConfig) -> None:
        self.problem, self.execution = problem, execution
        training = problem.spec.training
        self.store = ClientStore(
            problem.histories.n_slots,
            problem.backbone,
            problem.router,
            problem.spec.seed,
            training.client_optimizer,
            (training.client_lr, training.effective_router_lr),
            problem.dtype,
            problem.device,
        )
        self.own: PrivateItems | None = None
        if problem.backbone.own_rows != "none":
            self.own = PrivateItems(problem, execution.memory_budget)
        self.workers = Workers(problem, self.store, self.own)
        self._full: dict[bool, list[tuple[torch.Tensor, BlockSampler]]] = {}

    @torch.no_grad()
    def local_round(
        self,
        broadcast: Broadcast,
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        problem = self.problem
        slots = problem.histories.slot_of[cohort]
        by_slot, order = torch.sort(slots)
        alpha_by_slot = torch.zeros(problem.histories.n_slots, dtype=problem.dtype, device=problem.device)
        alpha_by_slot[by_slot] = weights[order].to(problem.dtype)
        if not problem.spec.protocol.keep_private_state:
            self.store.forget(problem.backbone.forgets, by_slot)
            if self.own is not None and "own" in problem.backbone.forgets:
                self.own.forget(by_slot)
        blocks = self._blocks(by_slot, collect is not None)
        shares = self.workers.prepare(blocks, broadcast, together=collect is None)
        trained = self.workers.run(shares, alpha_by_slot, round) if collect is None else TrainedBlocks(large=blocks)
        shape = UploadShape(broadcast.named())
        separate_sum: RunningSum | None = None
        broken = 0
        for _, sampler in trained.large:
            block = run_block_separately(problem, self.store, self.own, self.workers.first, sampler, shape, round)
            trained.losses += block.losses
            trained.clients += len(sampler.slots) - block.broken
            broken += block.broken
            if collect is not None:
                collect(block.uploads)
            else:
                separate_sum = separate_sum or RunningSum(shape, problem.dtype, problem.device)
                separate_sum.add(block.uploads, alpha_by_slot[problem.histories.slot_of[block.uploads.clients]])
        samples = sum(sampler.n_samples for _, sampler in blocks) * problem.spec.training.local_epochs
        sums = {} if collect is not None else self.workers.collect()
        if separate_sum is not None:
            sums = {name: value + separate_sum.tensors()[name] for name, value in sums.items()}
        left_out = {"not finite": broken} if broken else {}
        return Uplink(
            sums, trained.losses / max(trained.clients, 1), trained.clients, samples, self.workers.seconds(), left_out
        )

    def _blocks(self, slots: torch.Tensor, separate: bool) -> list[tuple[torch.Tensor, BlockSampler]]:
        """The cohort's clients that have samples, in blocks; kept for later rounds when the cohort is everybody."""
        everybody = len(slots) == self.problem.histories.n_slots
        if everybody and separate in self._full:
            return self._full[separate]
        per_epoch = self.problem.sampler.samples_per_epoch()[slots]
        active = slots[per_epoch > 0]
        cut = self._cut(active, per_epoch[per_epoch > 0], separate)
        blocks = [(part, self.problem.sampler.block(part, everybody)) for part in cut]
        if everybody:
            self._full[separate] = blocks
        return blocks

    def _cut(self, slots: torch.Tensor, samples: torch.Tensor, separate: bool) -> list[torch.Tensor]:
        """Cut slots into blocks of neighbours: `block_clients` each, or as many as fit the cache."""
        if self.execution.block_clients is not None:
            return list(torch.split(slots, self.execution.block_clients)) if len(slots) else []
        wider = 1 if self.problem.device.type == "cpu" else ON_A_GPU
        most = max(1, wider * STATE_BYTES_PER_BLOCK // self.store.bytes_per_client())
        budget = wider * SAMPLES_PER_BLOCK["separate" if separate else self.workers.kind]
        blocks, begin, sizes = [], 0, samples.tolist()
        while begin < len(slots):
            fits = max(1, budget // min(sizes[begin], self.problem.sampler.batch_size))
            end = min(len(slots), begin + min(most, fits))
            blocks.append(slots[begin:end])
            begin = end
        return blocks

    @torch.no_grad()
    def score(self, broadcast: Broadcast, users: torch.Tensor) -> torch.Tensor:
        slots = self.problem.histories.slot_of[users.to(self.problem.device)]
        history = HistoryBlock(self.problem.histories, slots)
        return self.workers.first.score(broadcast, history, self._for_evaluation(slots))

    def _for_evaluation(self, slots: torch.Tensor) -> BlockState:
        """Copies of the private state of any slots, in the order given; forgotten groups as at the start."""
        protocol, forgets = self.problem.spec.protocol, self.problem.backbone.forgets
        groups = {}
        for name, values in self.store.values.items():
            lost = not protocol.keep_private_state and name in forgets
            groups[name] = self.store.initial[name].repeat(len(slots), 1) if lost else values.index_select(0, slots)
        return self.store.as_block(slots, groups)

    @torch.no_grad()
    def router_weights(self, broadcast: Broadcast) -> npt.NDArray[np.float64] | None:
        if self.problem.router is None:
            return None
        views = broadcast.item_views()
        table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        rows = []
        for users in self.problem.clients().split(1024):
            slots = self.problem.histories.slot_of[users]
            pooled = HistoryBlock(self.problem.histories, slots).pool(table)
            state = self._for_evaluation(slots)
            if state.router is not None:
                rows.append(self.problem.router.forward(state.router.values, pooled).weights)
        return torch.cat(rows).double().cpu().numpy()

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        state = {"clients": self.problem.histories.order.clone()} | self.store.state(moments)
        return state if self.own is None else state | self.own.state(moments)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        order = self.problem.histories.order
        if "clients" in state and not torch.equal(state["clients"].to(self.problem.device), order):
            raise ConfigError(
                "this private state is of other clients, or of other histories; it cannot be gone on from"
            )
        self.store.load(state)
        if self.own is not None:
            self.own.load(state)
