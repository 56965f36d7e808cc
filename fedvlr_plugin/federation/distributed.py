"""More than one process: clients sharded over ranks, uplinks summed by all-reduce (torchrun).

    torchrun --nproc-per-node 2 benchmarks/run_table2.py ...

Every rank holds the private state of its own clients only, trains those of the cohort, and takes the same server
step on the same summed uplink. Without torchrun there is one process and every call here is a no-op. The backend is
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
    """This process among its peers; `rank` 0 is the one that prints and writes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes results."""
        return self.rank == 0

    def mine(self, sizes: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """Client ids of this process, ascending; None when there is one process.

        Clients are dealt out by the sizes of their histories `[U]`, the largest first, to and fro (0 1 1 0 0 1 ...),
        so that the processes have about as much to do: a round lasts as long as its slowest process.
        """
        if self.size == 1:
            return None
        order = np.argsort(-sizes, kind="stable")
        turn, place = np.divmod(np.arange(len(order)), self.size)
        dealt = np.where(turn % 2 == 0, place, self.size - 1 - place)
        return torch.from_numpy(np.sort(order[dealt == self.rank]))

    def add_up(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replaces each tensor by its sum over all processes, in place."""
        if self.size > 1:
            for name in sorted(tensors):
                summed = tensors[name].contiguous()
                dist.all_reduce(summed)
                tensors[name] = summed

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        out: list[T | None] = [None] * self.size
        dist.all_gather_object(out, value)
        return [v for v in out if v is not None]


def join_processes(device: torch.device) -> Processes:
    """Joins the group that torchrun announced in the environment; one process when there is none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Processes()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(local_device(device))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def local_device(device: torch.device) -> torch.device:
    """`cuda` without an index becomes this rank's own GPU."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def announced_rank() -> int:
    """Rank announced by torchrun, 0 without it; for deciding who prints before the group is joined."""
    return int(os.environ.get("RANK", "0"))
