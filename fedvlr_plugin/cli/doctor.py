"""`fedvlr doctor`: what is installed, which shims are in force, which device is there, which data sets are found.

It answers the first questions of every support thread, and exits with 1 when something the base installation
needs is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.threads import WAIT_POLICY, let_threads_sleep
from fedvlr_plugin.versions import installed

BASE = ("torch", "recbole", "numpy", "scipy", "pandas", "tabulate", "optuna", "pydantic", "pyarrow", "rich", "typer")
EXTRAS = {"fedml": "fedml", "open_clip_torch": "clip", "matplotlib": "report", "dp-accounting": "dp", "numba": "speed"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `problem` makes the exit status 1."""

    text: str
    problem: bool = False


def examine(data_root: Path | None) -> list[Finding]:
    """All findings, in the order they are shown. Never raises for what it finds."""
    findings = [*_packages()]
    for look in (_device, _threads, _shims, lambda: _data(data_root)):
        findings += _careful(look)
    return findings


def _threads() -> list[Finding]:
    import torch

    waits = "asleep" if let_threads_sleep() else "as OMP_WAIT_POLICY says" if WAIT_POLICY in os.environ else "spinning"
    return [Finding(f"torch uses {torch.get_num_threads()} threads, which wait for each other {waits}")]


def _careful(look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except (ImportError, FedVLRError) as error:
        return [Finding(f"{type(error).__name__}: {error}", problem=True)]


def _packages() -> list[Finding]:
    found = []
    for name in BASE:
        found_version = installed(name)
        if found_version is None:
            found.append(Finding(f"{name} is missing; it is part of the base installation", problem=True))
            continue
        try:
            import_module(name)
        except ImportError as error:
            found.append(Finding(f"{name} {found_version} cannot be imported: {error}", problem=True))
        else:
            found.append(Finding(f"{name} {found_version}"))
    for name, extra in EXTRAS.items():
        found.append(Finding(f"{name} {installed(name) or f'not installed (optional, extra [{extra}])'}"))
    return found


def _device() -> list[Finding]:
    import torch

    from fedvlr_plugin.experiment.environment import environment

    found = environment()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cuda = f"cuda: {', '.join(gpus)}" if gpus else "cuda: none"
    loops = "compiled" if found.compiled else "tensor operations (slower; the extra [speed] compiles them)"
    cpu = f"cpu: {found.cpu_model}, {found.cores} cores, {found.threads} threads"
    return [Finding(cuda), Finding(cpu), Finding(f"local steps on cpu: {loops}")]


def _shims() -> list[Finding]:
    from fedvlr_plugin import compat

    compat.prepare_recbole()
    compat.prepare_torchvision()
    return [Finding(f"shim applied: {line}") for line in compat.applied()] or [Finding("no shims needed")]


def _data(data_root: Path | None) -> list[Finding]:
    from fedvlr_plugin.data.catalogue import available, resolve_data_root

    root = resolve_data_root(data_root)
    where = f"in '{root}'" if root else "no data root (set --data-root or FEDVLR_DATA)"
    return [Finding(f"data sets, {where}: {', '.join(available(root))}")]
