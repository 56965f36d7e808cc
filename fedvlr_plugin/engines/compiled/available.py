"""Whether the inner loops of sampling and of local steps run compiled: where numba is installed (extra `speed`), on CPUs.

Samples are the same either way, bit by bit; steps agree to rounding (1e-9 in float64). `FEDVLR_COMPILED=0` switches all
of it off.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os

import torch


def compiled_on(device: torch.device) -> bool:
    """Whether `compiled` may be imported and used for tensors of this device."""
    return device.type == "cpu" and _available()


@functools.cache
def _available() -> bool:
    if os.environ.get("FEDVLR_COMPILED", "1") == "0" or importlib.util.find_spec("numba") is None:
        return False
    try:
        importlib.import_module("fedvlr_plugin.engines.compiled.sampling")
    except ImportError as error:
        logging.getLogger(__name__).warning(
            "numba is installed but does not load (%s); clients train without it, more slowly", error
        )
        return False
    return True
