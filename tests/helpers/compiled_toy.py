"""A block of clients for the suites of the compiled loops."""

import numpy as np


class Block:
    """Clients with 0, 1, 5 and 150 samples (more than two chunks), some items twice; views of width 2 d or d."""

    def __init__(self, dtype=np.float64, views=1, seed=0):
        source = np.random.default_rng(seed)
        self.n_items, self.d, self.views = 40, 6, views
        counts = np.array([150, 5, 1, 0])
        self.indptr = np.concatenate([[0], np.cumsum(counts)])
        self.items = source.integers(0, self.n_items, counts.sum())
        self.labels = source.integers(0, 2, counts.sum()).astype(dtype)
        self.share = (1 / np.maximum(counts, 1)).astype(dtype)
        self.alpha = source.random(4).astype(dtype)
        self.table = source.standard_normal((self.n_items, views * self.d)).astype(dtype)
        self.theta = source.standard_normal((4, self.d)).astype(dtype)
        self.bias = source.standard_normal(4).astype(dtype)
        weights = source.random((4, views)).astype(dtype)
        self.weights = weights / weights.sum(1, keepdims=True)
        self.q = (self.weights[:, :, None] * self.theta[:, None]).reshape(4, -1) if views > 1 else self.theta
        self.sums = source.standard_normal(self.table.shape).astype(dtype)
        self.dtype = dtype

    def room(self):
        return (
            np.full(4, np.nan, self.dtype),
            np.full(self.q.shape, np.nan, self.dtype),
            np.full(4, np.nan, self.dtype),
        )

    def samples(self):
        for c in range(4):
            for p in range(self.indptr[c], self.indptr[c + 1]):
                yield c, self.items[p], self.labels[p]
