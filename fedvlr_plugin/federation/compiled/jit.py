"""How the loops are compiled: on first call, kept on disk, without Python's lock. Imports nothing of ours.

Loops over floating-point numbers may be regrouped (`fast`), so that sums run in vector registers. Numbers that are not
finite stay what they are, and one processor always gives the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Float = np.float64  # or float32: all of one call are of one kind
Floats = npt.NDArray[np.float64]
Signed = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]
F = TypeVar("F", bound=Callable[..., object])
KEPT = not sys.dont_write_bytecode
REGROUPED = {"reassoc", "contract", "nsz", "arcp"}


def compiled(function: F) -> F:
    """Compiled when first called; kept on disk beside Python's own compiled files, if there is a folder for these."""
    try:
        return cast(F, numba.njit(cache=KEPT, nogil=True)(function))
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(nogil=True)(function))


def fast(function: F) -> F:
    """The same, with sums in any order, and divisions by zero as numpy has them (a check would keep loops scalar)."""
    try:
        return cast(F, numba.njit(cache=KEPT, nogil=True, fastmath=REGROUPED, error_model="numpy")(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, fastmath=REGROUPED, error_model="numpy")(function))
