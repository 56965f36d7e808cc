"""Devices: which one is used, whether it is there, and sums in one order on a GPU.

A GPU adds to an item's row in whatever order its threads arrive, unless torch is told to sort first. A CPU has no such
freedom, and nothing is changed for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedvlr_plugin.errors import DeviceError


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


def pick_device(device: str) -> str:
    """`auto` is a CUDA device where there is one; raises `DeviceError` for one that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda") or (device.startswith("cuda") and not torch.cuda.is_available()):
        there = "cpu" + (", cuda" if torch.cuda.is_available() else "")
        raise DeviceError(
            f"the device '{device}' is not there; available: {there}. Use --device auto to take what there is"
        )
    return device


def check_device(name: str) -> None:
    """Raises `DeviceError` when torch cannot use the device called `name`."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"'{name}' is not a device; allowed: cpu, cuda, cuda:<index>") from None
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise DeviceError(f"device '{name}' is not supported; allowed: cpu, cuda, cuda:<index>")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(f"device '{name}' is not there: torch sees no CUDA device; use --device cpu")
    if device.index is not None and device.index >= count:
        raise DeviceError(
            f"device '{name}' is not there: torch sees {count} CUDA device(s), cuda:0 to cuda:{count - 1}"
        )
