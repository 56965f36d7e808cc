"""Wall time, CPU time and peak memory of a piece of work. Imports `benchmark.result` only."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

from fedvlr_plugin.benchmark.result import Resources


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
