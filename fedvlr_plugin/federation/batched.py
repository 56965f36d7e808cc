"""The batched engine: all clients of a block as one tensor program, block after block.

Backbones with a linear head run in closed form (`folded`, with private item rows `folded_own`); all others run through
autograd over padded gathers (`gathered`). All local epochs of a block run before the next block starts, so that its private state stays in
cache. Blocks are slices of the slot order (largest clients first); their size follows from the bytes of private
state and the number of samples, never from the number of threads. Several blocks run side by side (`crew`), each worker
with a sum of its own. Imports the federation's parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.backbones.contract import Backbone
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.apart import looks_large, run_block_apart
from fedvlr_plugin.federation.clients import BlockState, ClientStore
from fedvlr_plugin.federation.contract import Uplink
from fedvlr_plugin.federation.crew import Crew, share_out
from fedvlr_plugin.federation.folded import FoldedProgram
from fedvlr_plugin.federation.folded_own import FoldedOwnProgram
from fedvlr_plugin.federation.gathered import GatheredProgram
from fedvlr_plugin.federation.histories import HistoryBlock
from fedvlr_plugin.federation.own_rows import OwnRows, OwnSnapshot
from fedvlr_plugin.federation.samples import BlockSampler
from fedvlr_plugin.federation.setup import LocalProblem
from fedvlr_plugin.federation.uploads import Collect, RunningSum, UploadShape

SUMS_BYTES = 2**30
STATE_BYTES_PER_BLOCK = 12 * 1024**2
SAMPLES_PER_BLOCK = {"folded": 65_536, "folded_own": 4_096, "gathered": 16_384, "apart": 8_192}


Program = FoldedProgram | GatheredProgram
Block = tuple[torch.Tensor, BlockSampler]


@dataclass
class Done:
    """What a worker has done: the sum of its clients' mean losses, their number, and blocks to be run apart."""

    losses: float = 0.0
    clients: int = 0
    large: list[Block] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Takes another worker's part in."""
        self.losses += other.losses
        self.clients += other.clients
        self.large += other.large


class BatchedEngine:
    """See the module. One `ClientStore` (and `OwnRows`, where the backbone has private item rows) holds all clients."""

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
        self.own: OwnRows | None = None
        if problem.backbone.own_rows != "none":
            self.own = OwnRows(problem, execution.memory_budget)
        self.kind = "gathered"
        if _folds(problem.backbone) and not (self.own is not None and problem.pairs):
            self.kind = "folded" if self.own is None else "folded_own"
        self.programs = [self._program()]
        self.crew = Crew(problem.device)
        self._full: dict[bool, list[tuple[torch.Tensor, BlockSampler]]] = {}

    @torch.no_grad()
    def local_round(
        self,
        broadcast: dict[str, torch.Tensor],
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        problem = self.problem
        slots = problem.histories.slot_of[cohort]
        by_slot, order = torch.sort(slots)
        alpha_of = torch.zeros(problem.histories.n_slots, dtype=problem.dtype, device=problem.device)
        alpha_of[by_slot] = weights[order].to(problem.dtype)
        if not problem.spec.protocol.keep_private_state:
            self.store.forget(problem.backbone.forgets, by_slot)
            if self.own is not None and "own" in problem.backbone.forgets:
                self.own.forget(by_slot)
        blocks = self._blocks(by_slot, collect is not None)
        teams = [list(range(len(blocks)))]
        if collect is None:
            teams = self._teams([sampler for _, sampler in blocks], broadcast)
        while len(self.programs) < len(teams):
            self.programs.append(self._program())
        programs = self.programs[: max(1, len(teams))]
        for program in programs:
            program.seconds = dict.fromkeys(program.seconds, 0.0)
            program.prepare(broadcast)
        done = Done()
        if collect is None:
            tasks = [
                partial(self._run, program, [blocks[i] for i in team], alpha_of, round)
                for program, team in zip(programs, teams, strict=False)
            ]
            for part in self.crew.run(tasks):
                done.add(part)
        else:
            done.large = blocks
        shape = UploadShape(broadcast)
        aside: RunningSum | None = None
        broken = 0
        for _, sampler in done.large:
            apart = run_block_apart(problem, self.store, self.own, programs[0], sampler, shape, round)
            done.losses += apart.losses
            done.clients += len(sampler.slots) - apart.broken
            broken += apart.broken
            if collect is not None:
                collect(apart.uploads)
            else:
                aside = aside or RunningSum(shape, problem.dtype, problem.device)
                aside.add(apart.uploads, alpha_of[problem.histories.slot_of[apart.uploads.clients]])
        samples = sum(sampler.n_samples for _, sampler in blocks) * problem.spec.training.local_epochs
        sums: dict[str, torch.Tensor] = {}
        if collect is None:
            sums = programs[0].collect()
            for program in programs[1:]:
                sums = {name: value + sums[name] for name, value in program.collect().items()}
        if aside is not None:
            sums = {name: value + aside.tensors()[name] for name, value in sums.items()}
        left_out = {"not finite": broken} if broken else {}
        seconds = {name: sum(p.seconds[name] for p in programs) / len(programs) for name in programs[0].seconds}
        return Uplink(sums, done.losses / max(done.clients, 1), done.clients, samples, seconds, left_out)

    def _run(self, program: Program, blocks: list[Block], alpha: torch.Tensor, round: int) -> Done:
        """Trains some blocks, but those with large private values, which are handed back."""
        done = Done()
        for block, sampler in blocks:
            state = self.store.checkout(block)
            if looks_large(state):
                done.large.append((block, sampler))
                continue
            done.losses += float(program.run(sampler, state, alpha[block], round).sum())
            self.store.checkin(state)
            done.clients += len(block)
        return done

    def _teams(self, samplers: list[BlockSampler], broadcast: dict[str, torch.Tensor]) -> list[list[int]]:
        """Which blocks each worker runs; fewer workers where their sums would take more than `SUMS_BYTES`."""
        received = sum(value.numel() * value.element_size() for value in broadcast.values())
        workers = min(self.crew.workers(), max(1, SUMS_BYTES // max(1, 2 * received)))
        return share_out([self._cost(sampler) for sampler in samplers], workers)

    def _cost(self, sampler: BlockSampler) -> float:
        """About how long a block takes, in samples of the only step of an epoch (measured)."""
        batches = sampler.batches
        cost = sampler.n_samples + 0.55 * len(batches.head)
        if self.kind == "folded":
            steps = sum(cut.clients for cut in batches.cuts)
            cost += 0.11 * self.problem.fusion.n_views * steps * self.problem.histories.n_items
        return cost

    def _program(self) -> Program:
        if self.kind == "folded":
            return FoldedProgram(self.problem, self.store)
        if self.kind == "folded_own" and self.own is not None:
            return FoldedOwnProgram(self.problem, self.store, self.own)
        return GatheredProgram(self.problem, self.store, self.own)

    def _blocks(self, slots: torch.Tensor, apart: bool) -> list[tuple[torch.Tensor, BlockSampler]]:
        """The cohort's clients with samples, cut into blocks; kept when the cohort is everybody."""
        everybody = len(slots) == self.problem.histories.n_slots
        if everybody and apart in self._full:
            return self._full[apart]
        per_epoch = self.problem.sampler.samples_per_epoch()[slots]
        active = slots[per_epoch > 0]
        cut = self._cut(active, per_epoch[per_epoch > 0], apart)
        blocks = [(b, self.problem.sampler.block(b, everybody)) for b in cut]
        if everybody:
            self._full[apart] = blocks
        return blocks

    def _cut(self, slots: torch.Tensor, samples: torch.Tensor, apart: bool) -> list[torch.Tensor]:
        """Blocks of neighbours: at most `block_clients`, or as many as fit the cache's share."""
        if self.execution.block_clients is not None:
            return list(torch.split(slots, self.execution.block_clients)) if len(slots) else []
        most = max(1, STATE_BYTES_PER_BLOCK // self.store.bytes_per_client())
        budget = SAMPLES_PER_BLOCK["apart" if apart else self.kind]
        blocks, begin, sizes = [], 0, samples.tolist()
        while begin < len(slots):
            fits = max(1, budget // min(sizes[begin], self.problem.sampler.batch_size))
            end = min(len(slots), begin + min(most, fits))
            blocks.append(slots[begin:end])
            begin = end
        return blocks

    @torch.no_grad()
    def score(self, broadcast: dict[str, torch.Tensor], users: torch.Tensor) -> torch.Tensor:
        slots = self.problem.histories.slot_of[users.to(self.problem.device)]
        history = HistoryBlock(self.problem.histories, slots)
        return self.programs[0].score(broadcast, history, self._for_evaluation(slots))

    def _for_evaluation(self, slots: torch.Tensor) -> BlockState:
        """Copies of the private state of any slots, in the order given; forgotten groups as at the start."""
        protocol, forgets = self.problem.spec.protocol, self.problem.backbone.forgets
        groups = {}
        for name, values in self.store.values.items():
            lost = not protocol.keep_private_state and name in forgets
            groups[name] = self.store.initial[name].repeat(len(slots), 1) if lost else values.index_select(0, slots)
        return self.store.as_block(slots, groups)

    @torch.no_grad()
    def router_weights(self, broadcast: dict[str, torch.Tensor]) -> npt.NDArray[np.float64] | None:
        if self.problem.router is None:
            return None
        views = broadcast["views"]
        table = views.transpose(0, 1).reshape(views.shape[1], -1).contiguous()
        rows = []
        for users in self.problem.clients().split(1024):
            slots = self.problem.histories.slot_of[users]
            pooled = HistoryBlock(self.problem.histories, slots).pool(table)
            state = self._for_evaluation(slots)
            if state.router is not None:
                rows.append(self.problem.router.forward(state.router.values, pooled).weights)
        return torch.cat(rows).double().cpu().numpy()

    def export_private(self) -> dict[str, torch.Tensor]:
        state = self.store.snapshot()
        if self.own is not None:
            state |= self.own.export()
        return state

    def import_private(self, state: dict[str, torch.Tensor]) -> None:
        self.store.restore({name: state[name] for name in self.store.values})
        if self.own is not None:
            self.own.load(state)

    def training_state(self) -> dict[str, torch.Tensor]:
        state = {"clients": self.problem.histories.order} | self.store.training_state()
        return state if self.own is None else state | self.own.training_state()

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        if not torch.equal(state["clients"].to(self.problem.device), self.problem.histories.order):
            raise ConfigError(
                "this private state is of other clients, or of other histories; it cannot be gone on from"
            )
        self.store.load_training_state(state)
        if self.own is not None:
            self.own.load_training_state(state)

    def snapshot(self) -> object:
        return (self.store.snapshot(), None if self.own is None else self.own.snapshot())

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, tuple):
            raise TypeError("not a snapshot of the batched engine")
        dense, own = snapshot
        self.store.restore(dense)
        if self.own is not None and isinstance(own, OwnSnapshot):
            self.own.restore(own)

    def snapshot_state(self, snapshot: object) -> dict[str, torch.Tensor]:
        if not isinstance(snapshot, tuple):
            raise TypeError("not a snapshot of the batched engine")
        dense, own = snapshot
        state = {f"dense.{name}": value for name, value in dense.items()}
        return state | own.tensors() if isinstance(own, OwnSnapshot) else state

    def load_snapshot_state(self, state: Mapping[str, torch.Tensor]) -> object:
        dense = {name[len("dense.") :]: value for name, value in state.items() if name.startswith("dense.")}
        return (dense, None if self.own is None else self.own.load_snapshot(state))


def _folds(backbone: Backbone) -> bool:
    """Whether the closed form is all there is to it: a linear score, and a penalty's slopes by who wrote the penalty."""

    def writer(method: str) -> type:
        return next(kind for kind in type(backbone).__mro__ if method in vars(kind))

    return backbone.linear and (not backbone.has_penalty or issubclass(writer("penalty_slopes"), writer("penalty")))
