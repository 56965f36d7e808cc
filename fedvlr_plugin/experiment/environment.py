"""Under what a number was computed: code version, package versions, machine. No host name, no path, no user name."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

import fedvlr_plugin
from fedvlr_plugin.engines.compiled.available import compiled_on
from fedvlr_plugin.versions import installed

PACKAGES = (
    "torch", "recbole", "numpy", "pandas", "scipy", "pyarrow", "pydantic",
    "optuna", "fedml", "open_clip_torch", "torchvision", "dp-accounting", "numba",
)  # fmt: skip


class Environment(BaseModel):
    """Code, packages and machine of one run.

    Attributes:
        git_commit: of the source tree the package runs from; None when it runs from an installed copy.
        git_modified: whether tracked files differed from that commit; None without a commit.
        packages: installed versions; a package that is not installed is absent.
        cpu_model, gpu_model: as the system names them; `gpu_model` None when the run used no GPU.
        cores: usable by this process.
        threads: that torch used.
        compiled: whether local steps ran through the compiled loops (`federation.loops`); None in older records.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fedvlr_plugin: str
    git_commit: str | None
    git_modified: bool | None
    python: str
    packages: dict[str, str]
    system: str
    machine: str
    cpu_model: str
    cores: int
    threads: int
    gpu_model: str | None
    compiled: bool | None = None


def environment(device: str = "cpu") -> Environment:
    """Captures the environment of a run on `device`."""
    commit, modified = _git()
    return Environment(
        fedvlr_plugin=fedvlr_plugin.__version__,
        git_commit=commit,
        git_modified=modified,
        python=platform.python_version(),
        packages=_packages(),
        system=platform.system(),
        machine=platform.machine(),
        cpu_model=_cpu_model(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        gpu_model=torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        compiled=compiled_on(torch.device(device)),
    )


@functools.cache
def _packages() -> dict[str, str]:
    found = {name: installed(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number is not None}


@functools.cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of the tree that tracks this very file, and whether it was modified; a foreign tree does not count."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None, None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit, None if commit is None or changed is None else bool(changed)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
