"""Several processes: clients sharded over ranks, uploads summed by all-reduce (torchrun).

    torchrun --nproc-per-node 2 benchmarks/run_table2.py ...

Every rank holds the private state of its own clients only, trains those of the cohort, and takes the same server
step on the same sum of uploads. Without torchrun there is one process, and every call here does nothing. The backend is
gloo on CPU and nccl on GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run: the rank of this one, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes results."""
        return self.rank == 0

    def clients_of_rank(self, sizes: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """User ids of this process's clients, ascending; None when there is one process.

        Clients are given to the ranks in descending order of their histories, forwards and backwards in turn
        (0 1 1 0 0 1 ...), so that all ranks have about the same load: a round lasts as long as its slowest process.

        Args:
            sizes: lengths of the clients' histories, `[U]`.
        """
        if self.size == 1:
            return None
        order = np.argsort(-sizes, kind="stable")
        turn, place = np.divmod(np.arange(len(order)), self.size)
        rank_of = np.where(turn % 2 == 0, place, self.size - 1 - place)
        return torch.from_numpy(np.sort(order[rank_of == self.rank]))

    def add_up(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""
        if self.size > 1:
            for name in sorted(tensors):
                summed = tensors[name].contiguous()
                dist.all_reduce(summed)
                tensors[name] = summed

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return [each for each in values if each is not None]


def join_processes(device: torch.device) -> Processes:
    """Join the group that torchrun announced in the environment; one process where there is none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Processes()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(local_device(device))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this rank for `cuda` without an index, and any other device as it is."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def announced_rank() -> int:
    """The rank that torchrun announced, 0 without it; known before the group is joined."""
    return int(os.environ.get("RANK", "0"))
