"""One epoch of a block's samples in one pass.

Per client: draw the negatives, join them to the positives, shuffle where there are several batches, and put each
sample to its place in the order of the steps; all of it in the first cache. The draws are whole numbers, so what comes
out is what the tensor operations in `samples` and `batches` give, bit by bit, in a fifth of the time. Clients are
ragged, c's numbers being `indptr[c]:indptr[c + 1]`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.engines.compiled.jit import Floats, Signed, Unsigned, compiled
from fedvlr_plugin.rng import GOLDEN as _GOLDEN
from fedvlr_plugin.rng import MUL_1 as _MUL_1
from fedvlr_plugin.rng import MUL_2 as _MUL_2

GOLDEN, MUL_1, MUL_2 = np.uint64(_GOLDEN), np.uint64(_MUL_1), np.uint64(_MUL_2)
UPPER, LOWER, ONE = np.uint64(0xFFFFFFFF00000000), np.uint64(0xFFFFFFFF), np.uint64(1)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
LIST_FROM = 16  # items that are listed in the time of one search


@compiled
def mix(z: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64, as in `rng`."""
    z = (z ^ (z >> S30)) * MUL_1
    z = (z ^ (z >> S27)) * MUL_2
    return z ^ (z >> S31)


@compiled
def draw_listed(key: np.uint64, below: np.uint64, items: npt.NDArray[np.int32], out: Signed) -> None:
    """Fills `out` with draws of one client from the list of its `below` items outside the history."""
    for j in range(len(out)):
        out[j] = items[((mix((np.uint64(j) + ONE) * GOLDEN + key) >> S32) * below) >> S32]


@compiled
def draw_searched(key: np.uint64, below: np.uint64, gaps: Signed, out: Signed) -> None:
    """The same without a list: the r-th item outside a sorted history h is r + #{k : gaps_k <= r}, gaps_k = h_k - k."""
    for j in range(len(out)):
        rank = np.int64(((mix((np.uint64(j) + ONE) * GOLDEN + key) >> S32) * below) >> S32)
        low, high = 0, len(gaps)
        while low < high:
            middle = (low + high) // 2
            if gaps[middle] <= rank:
                low = middle + 1
            else:
                high = middle
        out[j] = rank + low


@compiled
def list_outside(gaps: Signed, items: npt.NDArray[np.int32]) -> None:
    """Fills `items` with all items outside a history."""
    rank = 0
    for k in range(len(gaps)):
        while rank < gaps[k]:
            items[rank] = rank + k
            rank += 1
    while rank < len(items):
        items[rank] = rank + len(gaps)
        rank += 1


@compiled
def shuffle(key: np.uint64, packed: Unsigned, ordered: Unsigned, ends: Signed) -> None:
    """Fills `ordered` with 0 .. n - 1 below and 32 random bits each above, sorted.

    The bits are uniform, so about one number falls into each of as many buckets as there are numbers; a sort by
    insertion does the rest. `packed [n]` and `ends [2 n + 1]` at least are scratch.
    """
    n, bits = np.int64(len(ordered)), np.int64(1)
    while (1 << bits) < n:
        bits += 1
    shift = np.uint64(64 - bits)
    ends[: (1 << bits) + 1] = 0
    for j in range(n):
        packed[j] = (mix((np.uint64(j) + ONE) * GOLDEN + key) & UPPER) | np.uint64(j)
        ends[np.int64(packed[j] >> shift) + 1] += 1
    for bucket in range(1 << bits):
        ends[bucket + 1] += ends[bucket]
    for j in range(n):
        into = np.int64(packed[j] >> shift)
        ordered[ends[into]] = packed[j]
        ends[into] += 1
    for j in range(1, n):
        number, hole = ordered[j], j
        while hole > 0 and ordered[hole - 1] > number:
            ordered[hole] = ordered[hole - 1]
            hole -= 1
        ordered[hole] = number


@compiled
def epoch(
    bases: tuple[np.uint64, np.uint64],
    users: Unsigned,
    history: Signed,
    history_indptr: Signed,
    gaps: Signed,
    bound: Unsigned,
    lists: npt.NDArray[np.int32],
    list_indptr: Signed,
    pool: Signed,
    negatives: int,
    size: int,
    places: Signed,
    place_indptr: Signed,
    items: Signed,
    labels: Floats,
    positives: Signed,
) -> None:
    """Fills `items [K]` with `labels [K]`; or, where `labels` is empty, with `positives [K]`, the pairs' other items.

    Args:
        bases: `rng.derive` of everything but the client, for negatives and for the shuffle. users: `[B]` ids.
        history: positives, ascending within a client. gaps: their rank in the pool less their place, of the same shape.
        bound: `[B]` items of the pool outside each history. lists: those, ragged; or empty, and they are worked out.
        pool: item of each rank; empty where the pool is the catalogue. negatives: draws per positive.
        size: samples of a batch at most. places: where each batch of each client begins in the order of steps.
    """
    pairs, most, widest = len(labels) == 0, np.int64(0), np.uint64(0)
    for c in range(len(users)):
        most, widest = max(most, history_indptr[c + 1] - history_indptr[c]), max(widest, bound[c])
    scratch = np.empty(most * negatives, dtype=np.int64)
    outside = np.empty(np.int64(widest), dtype=np.int32)
    packed, ordered = np.empty(most * (negatives + 1), dtype=np.uint64), np.empty(most * (negatives + 1), np.uint64)
    ends = np.empty(2 * len(packed) + 3, dtype=np.int64)
    for c in range(len(users)):
        positive_items, below = history[history_indptr[c] : history_indptr[c + 1]], bound[c]
        h = len(positive_items)
        m = h * negatives if below > 0 else 0
        drawn, steps = scratch[:m], gaps[history_indptr[c] : history_indptr[c + 1]]
        key = mix((users[c] + ONE) * GOLDEN + bases[0])
        if len(lists) > 0:
            draw_listed(key, below, lists[list_indptr[c] : list_indptr[c + 1]], drawn)
        elif LIST_FROM * m > np.int64(below):
            list_outside(steps, outside[: np.int64(below)])
            draw_listed(key, below, outside, drawn)
        else:
            draw_searched(key, below, steps, drawn)
        if len(pool) > 0:
            for j in range(m):
                drawn[j] = pool[drawn[j]]
        n = m if pairs else h + m
        several = n > size
        if several:
            key = mix((users[c] + ONE) * GOLDEN + bases[1])
            shuffle(key, packed[:n], ordered[:n], ends)
        for step in range(place_indptr[c], place_indptr[c + 1]):
            begin = (step - place_indptr[c]) * size
            shift = places[step] - begin
            for p in range(begin, min(begin + size, n)):
                source = np.int64(ordered[p] & LOWER) if several else np.int64(p)
                if pairs:
                    items[shift + p], positives[shift + p] = drawn[source], positive_items[source // negatives]
                elif source < h:
                    items[shift + p], labels[shift + p] = positive_items[source], 1.0
                else:
                    items[shift + p], labels[shift + p] = drawn[source - h], 0.0
