"""The items that the steps of a client touch."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="needs the extra 'speed'")
from fedvlr_plugin.engines.compiled import touched_items  # noqa: E402


@pytest.mark.parametrize("n_items", [12, 2000])
def test_touched_items_are_the_distinct_ones_of_all_steps(n_items):
    """By a scan of the catalogue, and by sorting."""
    source = np.random.default_rng(2)
    steps = [[source.integers(0, n_items, size) for size in sizes] for sizes in ((7, 3, 0), (4, 0, 0))]
    items = np.concatenate([np.concatenate(step) for step in steps])
    indptr = np.stack([np.cumsum([0, *map(len, step)]) for step in steps])
    begins = np.array([0, indptr[0, -1]])
    keys, found = np.full_like(items, -1), np.zeros(4, np.int64)
    touched_items.touched(items, begins, indptr, n_items, keys, found)
    for c in range(3):
        wanted = np.unique(np.concatenate([step[c] for step in steps]))
        assert keys[found[c] : found[c + 1]].tolist() == wanted.tolist()
