"""Which private item rows a block's samples name, and what these rows add to scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.engines.compiled.jit import Floats, Signed, compiled, fast

SCAN_UNTIL = 32  # items of the catalogue for each touched one up to which a scan is cheaper than a sort


class Cells(NamedTuple):
    """The first n entries: the batch's distinct `items`, their samples `drawn`, and how many of these are `positive`."""

    items: Signed
    drawn: Floats
    positive: Floats


@compiled
def touched(
    items: Signed, begins: Signed, indptr: npt.NDArray[np.int64], n_items: int, keys: Signed, key_indptr: Signed
) -> None:
    """Fills `keys` with the distinct items that each client's samples in some steps name, ascending, ragged by client.

    Args:
        items: `[K]` of all steps. begins: `[S]` where each step's begin. indptr: `[S, B + 1]` in each step.
        keys: `[K]`, of which the first `key_indptr [B + 1]`[-1] are filled.
    """
    seen, n = np.full(n_items, -1, dtype=np.int64), np.int64(0)
    for c in range(indptr.shape[1] - 1):
        start = n
        for s in range(len(begins)):
            for p in range(begins[s] + indptr[s, c], begins[s] + indptr[s, c + 1]):
                if seen[items[p]] != c:
                    seen[items[p]] = c
                    keys[n] = items[p]
                    n += 1
        if (n - start) * SCAN_UNTIL > n_items:
            n = start
            for item in range(n_items):
                if seen[item] == c:
                    keys[n] = item
                    n += 1
        else:
            keys[start:n].sort()
        key_indptr[c + 1] = n


@compiled
def distinct(items: Signed, labels: Floats, begin: int, end: int, number: Signed, cells: Cells) -> int:
    """Fills `cells` with the distinct items of the samples `begin:end`, in order of appearance, and returns how many.

    `number [n_items]` is scratch: -1, and left so.
    """
    n = 0
    for p in range(begin, end):
        i = items[p]
        if number[i] < 0:
            number[i], cells.items[n], cells.drawn[n], cells.positive[n] = n, i, 0, 0
            n += 1
        drawn = number[i]
        cells.drawn[drawn] += 1
        cells.positive[drawn] += labels[p]
    for cell in range(n):
        number[cells.items[cell]] = -1
    return n


@fast
def add_scores(theta: Floats, items: Signed, places: Signed, indptr: Signed, values: Floats, scores: Floats) -> None:
    """Adds theta_c . P_ci to `scores [B, n_items]` where client c has a private row, `values[places]`."""
    zero, d = theta.dtype.type(0), theta.shape[1]
    for c in range(len(indptr) - 1):
        for at in range(indptr[c], indptr[c + 1]):
            row, total = places[at], zero
            for k in range(d):
                total += theta[c, k] * values[row, k]
            scores[c, items[at]] += total
