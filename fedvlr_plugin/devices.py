"""Choose and check devices, and make sums on a GPU deterministic.

A GPU adds the values of one sum in varying order unless torch uses deterministic kernels. A CPU has a fixed order, and
nothing is changed for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedvlr_plugin.errors import DeviceError


@contextmanager
def fixed_order(device: torch.device) -> Iterator[None]:
    """Use deterministic kernels on a CUDA device, backward passes included, and restore the setting at the end.

    An operation without such a kernel runs anyway, with a warning of torch. `CUBLAS_WORKSPACE_CONFIG`, which torch
    requires, is set for the process if it is not set.

    Args:
        device: of the computation; nothing changes unless it is a CUDA device.
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
    """Return the device to use.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, or `auto` for a CUDA device if there is one.

    Raises:
        DeviceError: the device is not available.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda") or (device.startswith("cuda") and not torch.cuda.is_available()):
        available = "cpu" + (", cuda" if torch.cuda.is_available() else "")
        raise DeviceError(
            f"the device '{device}' is not there; available: {available}. Use --device auto to take what there is"
        )
    return device


def check_device(name: str) -> None:
    """Raise `DeviceError` if torch cannot use the device `name`."""
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
