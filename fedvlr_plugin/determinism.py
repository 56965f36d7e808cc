"""Sums in one order on a GPU, so that the same run gives the same bits there too. Imports nothing of ours.

A GPU adds to an item's row in whatever order its threads arrive, unless torch is told to sort first. A CPU has no such
freedom, and nothing is changed for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fixed_order(device: torch.device) -> Iterator[None]:
    """Within it torch chooses deterministic kernels on a CUDA device, backward passes too; before is restored after.

    An operation that has no such kernel is run all the same, and torch warns of it. `CUBLAS_WORKSPACE_CONFIG`, which
    torch asks for, is set for the process unless it is set.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
