"""The batched engine's workers: a local program each, their shares of a round's blocks, and the sum of their uplinks.

Backbones with a linear head run in closed form (`closed_form`, with private item rows `closed_form_private`); all others run through
autograd over padded gathers (`autograd`).
Threads that share the blocks of a round: one thread per core, each with tensor operations of one thread.

Small blocks leave little for the threads of one tensor operation to share, and much to do between operations; whole
blocks side by side keep all cores busy. Which block goes to which worker follows from the blocks alone, so that sums
come out the same every time at equal threads.
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
class Done:
    """What is done: the sum of the clients' mean losses, their number, and blocks that are left to be run apart."""

    losses: float = 0.0
    clients: int = 0
    large: list[Block] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Takes another worker's part in."""
        self.losses += other.losses
        self.clients += other.clients
        self.large += other.large


class Workers:
    """As many programs as blocks run side by side.

    Attributes:
        kind: `closed_form`, `closed_form_private`, `compiled_private` or `autograd`.
    """

    def __init__(self, problem: LocalProblem, store: ClientStore, own: PrivateItems | None) -> None:
        self.problem, self.store, self.own = problem, store, own
        self.kind = "autograd"
        if _folds(problem.backbone) and not (own is not None and problem.pairs):
            compiled = compiled_on(problem.device) and _has_slopes(problem.backbone, "penalty_push")
            self.kind = "closed_form" if own is None else "compiled_private" if compiled else "closed_form_private"
        self.programs = [self._program()]
        self.busy = self.programs
        self.threads = BlockThreads(problem.device)

    @property
    def first(self) -> LocalProgram:
        """The program that scores, and that runs blocks apart."""
        return self.programs[0]

    def prepare(self, blocks: list[Block], broadcast: Broadcast, together: bool) -> list[list[Block]]:
        """Takes a round's broadcast in; returns each worker's blocks, which are all the first one's unless `together`."""
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

    def run(self, shares: list[list[Block]], alpha: torch.Tensor, round: int) -> Done:
        """Trains all blocks but those with large private values, which are handed back; `alpha` by slot."""
        pairs = zip(self.busy, shares, strict=True)
        done = Done()
        for part in self.threads.run([partial(self._run, program, share, alpha, round) for program, share in pairs]):
            done.add(part)
        return done

    def collect(self) -> dict[str, torch.Tensor]:
        """The summed uplink of all workers."""
        sums = self.busy[0].collect()
        for program in self.busy[1:]:
            sums = {name: value + sums[name] for name, value in program.collect().items()}
        return sums

    def seconds(self) -> dict[str, float]:
        """Seconds by phase since `prepare`, the mean over the workers."""
        names = self.busy[0].seconds
        return {name: sum(program.seconds[name] for program in self.busy) / len(self.busy) for name in names}

    def _run(self, program: LocalProgram, blocks: list[Block], alpha: torch.Tensor, round: int) -> Done:
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

    def _cost(self, sampler: BlockSampler) -> float:
        """About how long a block takes, in samples of the only step of an epoch (measured)."""
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


def _folds(backbone: Backbone) -> bool:
    """Whether the closed form is all there is to it: a linear score, and its penalty's slopes."""
    return backbone.linear and _has_slopes(backbone, "penalty_slopes")


def _has_slopes(backbone: Backbone, method: str) -> bool:
    """Whether there is no penalty, or whoever wrote it, or a heir of theirs, has written `method` for it too."""

    def writer(name: str) -> type:
        return next(kind for kind in type(backbone).__mro__ if name in vars(kind))

    return not backbone.has_penalty or issubclass(writer(method), writer("penalty"))


T = TypeVar("T")
TRIED_UP_TO = 12


class BlockThreads:
    """As many workers as torch has threads; one (the caller itself) on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: ThreadPoolExecutor | None = None
        self._made_for = (0, 0)

    def workers(self) -> int:
        """How many blocks may run side by side."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of at most `workers()` tasks, run side by side without gradients; the first error is raised."""
        if len(tasks) <= 1:
            return [task() for task in tasks]
        workers = self.workers()
        if len(tasks) > workers:
            raise ValueError(f"{len(tasks)} tasks for {workers} workers")
        each = max(1, workers // len(tasks))
        start = threading.Barrier(len(tasks))

        def alone(task: Callable[[], T]) -> T:
            start.wait()  # who began first would keep Python to itself, and the others waiting, for 5 ms
            torch.set_num_threads(each)  # for operations of this thread
            with torch.no_grad():
                return task()

        others = [self._hands(workers).submit(alone, task) for task in tasks[1:]]
        try:
            first = alone(tasks[0])  # by the caller: a thread that only waits would have to be woken
        finally:
            wait(others)
            torch.set_num_threads(workers)  # threads yet to be started take over what was set last
        return [first, *(future.result() for future in others)]

    def _hands(self, workers: int) -> ThreadPoolExecutor:
        """The threads, started anew when torch's number has changed, or in a forked child."""
        wanted = (workers, os.getpid())
        if self._pool is None or self._made_for != wanted:
            self._pool, self._made_for = ThreadPoolExecutor(workers - 1, thread_name_prefix="fedvlr-block"), wanted
        return self._pool


def share_out(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Positions of `costs` for each worker, ascending, none empty; the dearest worker is made about as cheap as can be.

    The dearest first, to whom has least to do. Then the worker who has most shares anew with another, by trying all
    ways, while that helps; with many blocks each there is no need.
    """
    n = min(workers, len(costs))
    mine: list[list[int]] = [[] for _ in range(n)]
    load = [0.0] * n
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        worker = load.index(min(load))
        mine[worker].append(i)
        load[worker] += costs[i]
    helped = n > 1
    while helped:
        most = load.index(max(load))
        helped = False
        for other in sorted(set(range(n)) - {most}, key=lambda worker: load[worker]):
            both = sorted(mine[most] + mine[other])
            if len(both) > TRIED_UP_TO:
                continue
            ways = itertools.product((False, True), repeat=len(both) - 1)  # the last one stays
            whole = load[most] + load[other]
            best, picked = min(
                (max(part, whole - part), way)
                for way in ways
                if any(way)
                for part in (sum(costs[i] for i, given in zip(both, way, strict=False) if given),)
            )
            if best < load[most] * (1 - 1e-9):
                given = [i for i, there in zip(both, picked, strict=False) if there]
                mine[other], mine[most] = given, [i for i in both if i not in given]
                load[other], load[most] = (sum(costs[i] for i in team) for team in (mine[other], mine[most]))
                helped = True
                break
    return [sorted(positions) for positions in mine]
