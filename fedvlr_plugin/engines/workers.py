"""Programs that train blocks of clients side by side, one per core, and the sum of their uploads.

Backbones with a linear head run in closed form (`closed_form`; with private item vectors `closed_form_private`), all
others through autograd (`autograd`). Small blocks leave little for the threads of one tensor operation to share, so there
is one thread per core instead, each with tensor operations of one thread. Which block goes to which worker follows from
the blocks alone, so that sums come out the same every time at equal threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.backbones.base import Backbone
from fedvlr_plugin.engines.autograd import AutogradProgram
from fedvlr_plugin.engines.base import LocalProblem, LocalProgram
from fedvlr_plugin.engines.client_state import ClientStore
from fedvlr_plugin.engines.closed_form import ClosedFormProgram
from fedvlr_plugin.engines.closed_form_private import ClosedFormPrivateProgram, CompiledPrivateProgram
from fedvlr_plugin.engines.compiled.available import compiled_on
from fedvlr_plugin.engines.per_client import looks_large
from fedvlr_plugin.engines.private_items import PrivateItems
from fedvlr_plugin.engines.sampling import BlockSampler

SUMS_BYTES = 2**30
Block = tuple[torch.Tensor, BlockSampler]


@dataclass
class TrainedBlocks:
    """What a worker trained.

    Attributes:
        losses: the sum of the clients' mean losses.
        clients: their number.
        large: blocks with large private values, which are left to be trained with each upload kept.
    """

    losses: float = 0.0
    clients: int = 0
    large: list[Block] = field(default_factory=list)

    def add(self, other: TrainedBlocks) -> None:
        """Add what another worker trained."""
        self.losses += other.losses
        self.clients += other.clients
        self.large += other.large


class Workers:
    """As many programs as blocks are trained side by side.

    Args:
        problem: the clients' side of the run.
        store: heads and routers.
        own: private item vectors, None where the backbone has none.

    Attributes:
        kind: `closed_form`, `closed_form_private`, `compiled_private` or `autograd`.
        programs: all that were made.
        busy: those of the present round.
    """

    def __init__(self, problem: LocalProblem, store: ClientStore, own: PrivateItems | None) -> None:
        self.problem, self.store, self.own = problem, store, own
        self.kind = "autograd"
        if _has_closed_form(problem.backbone) and not (own is not None and problem.pairs):
            compiled = compiled_on(problem.device) and _has_slopes(problem.backbone, "penalty_push")
            self.kind = "closed_form" if own is None else "compiled_private" if compiled else "closed_form_private"
        self.programs = [self._program()]
        self.busy = self.programs
        self.threads = BlockThreads(problem.device)

    @property
    def first(self) -> LocalProgram:
        """The program that scores, and that trains blocks with each upload kept."""
        return self.programs[0]

    def prepare(self, blocks: list[Block], broadcast: Broadcast, together: bool) -> list[list[Block]]:
        """Give a round's broadcast to the programs.

        Args:
            blocks: the round's blocks.
            broadcast: what the server sends.
            together: whether the uploads are summed; otherwise the first program trains all blocks.

        Returns:
            Each program's blocks.
        """
        teams = [list(range(len(blocks)))]
        if together and blocks:
            workers = min(self.threads.workers(), max(1, SUMS_BYTES // max(1, 2 * broadcast.size_bytes)))
            teams = share_out([self._cost(sampler) for _, sampler in blocks], workers)
        while len(self.programs) < len(teams):
            self.programs.append(self._program())
        self.busy = self.programs[: len(teams)]
        for program in self.busy:
            program.seconds = dict.fromkeys(program.seconds, 0.0)
            program.prepare(broadcast)
        return [[blocks[i] for i in team] for team in teams]

    def run(self, shares: list[list[Block]], alpha: torch.Tensor, round: int) -> TrainedBlocks:
        """Train all blocks but those with large private values, which are handed back; `alpha` by slot."""
        pairs = zip(self.busy, shares, strict=True)
        total = TrainedBlocks()
        for part in self.threads.run([partial(self._run, program, share, alpha, round) for program, share in pairs]):
            total.add(part)
        return total

    def collect(self) -> dict[str, torch.Tensor]:
        """The weighted sum of the uploads over all programs, by the broadcast's names and shapes."""
        sums = self.busy[0].collect()
        for program in self.busy[1:]:
            sums = {name: value + sums[name] for name, value in program.collect().items()}
        return sums

    def seconds(self) -> dict[str, float]:
        """Wall seconds by phase since `prepare`, the mean over the programs."""
        names = self.busy[0].seconds
        return {name: sum(program.seconds[name] for program in self.busy) / len(self.busy) for name in names}

    def _run(self, program: LocalProgram, blocks: list[Block], alpha: torch.Tensor, round: int) -> TrainedBlocks:
        trained = TrainedBlocks()
        for block, sampler in blocks:
            state = self.store.checkout(block)
            if looks_large(state):
                trained.large.append((block, sampler))
                continue
            trained.losses += float(program.run(sampler, state, alpha[block], round).sum())
            self.store.checkin(state)
            trained.clients += len(block)
        return trained

    def _cost(self, sampler: BlockSampler) -> float:
        """About how long a block takes, in units of one sample of an epoch of one step (measured)."""
        batches = sampler.batches
        cost = sampler.n_samples + 0.55 * batches.shuffled_samples
        if self.kind == "closed_form":
            steps = sum(cut.clients for cut in batches.cuts)
            cost += 0.11 * self.problem.fusion.n_views * steps * self.problem.histories.n_items
        return cost

    def _program(self) -> LocalProgram:
        if self.kind == "closed_form":
            return ClosedFormProgram(self.problem, self.store)
        if self.own is not None and self.kind != "autograd":
            kind = CompiledPrivateProgram if self.kind == "compiled_private" else ClosedFormPrivateProgram
            return kind(self.problem, self.store, self.own)
        return AutogradProgram(self.problem, self.store, self.own)


def _has_closed_form(backbone: Backbone) -> bool:
    """Whether the closed form gives all gradients: the score is linear, and the penalty's slopes are known."""
    return backbone.linear and _has_slopes(backbone, "penalty_slopes")


def _has_slopes(backbone: Backbone, method: str) -> bool:
    """Whether there is no penalty, or `method` was written for it: by the class that defines it or a subclass of that."""

    def defining_class(name: str) -> type:
        return next(kind for kind in type(backbone).__mro__ if name in vars(kind))

    return not backbone.has_penalty or issubclass(defining_class(method), defining_class("penalty"))


T = TypeVar("T")
TRIED_UP_TO = 12


class BlockThreads:
    """As many threads as torch has; one (the caller's) on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: ThreadPoolExecutor | None = None
        self._made_for = (0, 0)

    def workers(self) -> int:
        """How many blocks may be trained side by side."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run at most `workers()` tasks side by side, without gradients; return their results, or raise the first error."""
        if len(tasks) <= 1:
            return [task() for task in tasks]
        workers = self.workers()
        if len(tasks) > workers:
            raise ValueError(f"{len(tasks)} tasks for {workers} workers")
        threads_each = max(1, workers // len(tasks))
        start = threading.Barrier(len(tasks))

        def alone(task: Callable[[], T]) -> T:
            start.wait()  # the first to begin would hold Python's lock for 5 ms while the others wait
            torch.set_num_threads(threads_each)  # for operations of this thread
            with torch.no_grad():
                return task()

        others = [self._threads(workers).submit(alone, task) for task in tasks[1:]]
        try:
            first = alone(tasks[0])  # in the caller's thread: one that only waits would have to be woken
        finally:
            wait(others)
            torch.set_num_threads(workers)  # new threads start with the number that was set last
        return [first, *(future.result() for future in others)]

    def _threads(self, workers: int) -> ThreadPoolExecutor:
        """The pool, made anew when torch's number of threads has changed, or in a forked child."""
        key = (workers, os.getpid())
        if self._pool is None or self._made_for != key:
            self._pool, self._made_for = ThreadPoolExecutor(workers - 1, thread_name_prefix="fedvlr-block"), key
        return self._pool


def share_out(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Share tasks among workers so that the worker with most to do has about as little as can be.

    Tasks are given out in descending order of cost, each to the worker with the least load. Then the worker with the
    highest load and another one divide their tasks anew, by trying all ways, while that lowers the highest load.

    Args:
        costs: of the tasks.
        workers: at most so many lists are made.

    Returns:
        Positions of `costs` for each worker, ascending, none empty.
    """
    n = min(workers, len(costs))
    shares: list[list[int]] = [[] for _ in range(n)]
    load = [0.0] * n
    for task in sorted(range(len(costs)), key=lambda task: (-costs[task], task)):
        worker = load.index(min(load))
        shares[worker].append(task)
        load[worker] += costs[task]
    improved = n > 1
    while improved:
        busiest = load.index(max(load))
        improved = False
        for other in sorted(set(range(n)) - {busiest}, key=lambda worker: load[worker]):
            both = sorted(shares[busiest] + shares[other])
            if len(both) > TRIED_UP_TO:
                continue
            ways = itertools.product((False, True), repeat=len(both) - 1)  # the last task stays
            whole = load[busiest] + load[other]
            best, chosen = min(
                (max(part, whole - part), way)
                for way in ways
                if any(way)
                for part in (sum(costs[task] for task, given in zip(both, way, strict=False) if given),)
            )
            if best < load[busiest] * (1 - 1e-9):
                given_away = [task for task, given in zip(both, chosen, strict=False) if given]
                shares[other], shares[busiest] = given_away, [task for task in both if task not in given_away]
                for worker in (other, busiest):
                    load[worker] = sum(costs[task] for task in shares[worker])
                improved = True
                break
    return [sorted(tasks) for tasks in shares]
