"""Threads that share the blocks of a round: one thread per core, each with tensor operations of one thread.

Small blocks leave little for the threads of one tensor operation to share, and much to do between operations; whole
blocks side by side keep all cores busy. Which block goes to which worker follows from the blocks alone, so that sums
come out the same every time at equal threads. Imports nothing of ours.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
TRIED_UP_TO = 12


class Crew:
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
