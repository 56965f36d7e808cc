"""What one run gives back: ranks of the held-out items, the learning curve, and what it cost.

`RunResult` is the only thing that `run(spec)` returns and the only thing the results store takes in. Metrics are not
stored beside the ranks here: they are computed from them (`evaluation.metrics`), so that there is one truth. `Meter`
takes wall time, CPU time and peak memory.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.evaluation.ranks import Ranks
from fedvlr_plugin.evaluation.round_record import RoundRecord


@dataclass(frozen=True)
class Resources:
    """What the run cost. Bytes of memory are peaks of the process and of the accelerator."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_device_bytes: int = 0
    client_updates: int = 0
    samples: int = 0


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        outputs: arrays that the user asked for by name (e.g. `router_weights`).
        chosen: numbers that the run chose by validation NDCG@50 (a closed form's `lam`, the prior's `bonus`), and
            `points`, how many points of its grid were tried.
    """

    spec: RunSpec
    execution: ExecutionConfig
    data_name: str
    interactions_fingerprint: str
    data_fingerprint: str
    best_round: int
    curve: tuple[RoundRecord, ...]
    valid: Ranks
    test: Ranks
    resources: Resources
    outputs: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    chosen: Mapping[str, float] = field(default_factory=dict)


OnRound = Callable[[RoundRecord], None]


class Meter:
    """Measures from its creation to `read`.

    The peak of resident memory is that of the process since the meter started where the system can reset its
    high-water mark (Linux), and since the process started elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        _reset_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self, client_updates: int = 0, samples: int = 0) -> Resources:
        """What was used so far."""
        cuda = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0
        return Resources(
            wall_s=time.perf_counter() - self._wall,
            cpu_s=time.process_time() - self._cpu,
            peak_rss_bytes=_peak(),
            peak_device_bytes=cuda,
            client_updates=client_updates,
            samples=samples,
        )


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
