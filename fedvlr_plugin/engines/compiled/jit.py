"""How the loops are compiled: on first call, kept on disk, without Python's lock.

Loops over floating-point numbers may be regrouped (`fast`), so that sums run in vector registers. Numbers that are not
finite stay what they are, and one processor always gives the same bits.

For the last to hold, a loop that adds up and writes at once reads arrays at `j`, never at `begin + j`, which is copied
first: the latter may be negative for all the compiler knows, so it guards against an overlap with what lies behind the
array, and sums one by one where another array happens to lie there (`tests/engines/compiled/test_memory_layout.py`).
"""

from __future__ import annotations

import os
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
KEPT = not sys.dont_write_bytecode or "NUMBA_CACHE_DIR" in os.environ
REGROUPED = {"reassoc", "contract", "nsz", "arcp"}


def compiled(function: F) -> F:
    """Compile when first called; keep on disk beside Python's own compiled files, or in `NUMBA_CACHE_DIR`, if it can be."""
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


def part(function: F) -> F:
    """Compile a piece of `fast` functions, put into each of them.

    Otherwise a caller that comes from disk brings its own copy along, which may be grouped in another way than the one
    that is compiled beside it: the last bits of a sum would depend on what was on disk.
    """
    return cast(F, numba.njit(nogil=True, fastmath=REGROUPED, error_model="numpy", forceinline=True)(function))
