"""All local epochs of a block of linear heads over private item rows, client after client.

A client's rows stay in cache from its first step to its last. Each step: the router's weights (where there is one), the
head folded into Q, `own.client_step`, and the optimiser's steps of router and head. Imports `cells`, `jit`,
`descent`, `own`, `router`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.federation.compiled.cells import Cells, distinct
from fedvlr_plugin.federation.compiled.descent import descend
from fedvlr_plugin.federation.compiled.jit import Floats, Signed, fast
from fedvlr_plugin.federation.compiled.own import CHUNK, Room, Rows, Shared, Step, client_step
from fedvlr_plugin.federation.compiled.router import backward, forward


class Samples(NamedTuple):
    """All samples of a block's round: `items`, `labels [K]`; step s of client c has `begins[s] + indptr[s, c:c + 2]`."""

    items: Signed
    labels: Floats
    begins: Signed
    indptr: npt.NDArray[np.int64]


class Touched(NamedTuple):
    """Ragged by client, `indptr [B + 1]`: the `items` that its steps name, and where each one's private row is."""

    items: Signed
    places: Signed
    indptr: Signed


class Private(NamedTuple):
    """A group of private parameters: `values [B, P]`, Adam's moments (`[0, P]` under SGD), each client's `steps [B]`."""

    values: Floats
    first: Floats
    second: Floats
    steps: Signed


@fast
def train(
    samples: Samples,
    touched: Touched,
    shared: Shared,
    store: Private,
    head: Private,
    router: Private,
    n_hidden: int,
    pooled: Floats,
    grad_pooled: Floats,
    alpha: Floats,
    penalty: Floats,
    lrs: tuple[float, float, float],
    losses: Floats,
) -> None:
    """Trains the block in place, adds to `shared.sums` and `grad_pooled [B, G d]`, fills the mean `losses [B]`.

    Args:
        store: the private rows `[any, d]`. head: theta [d] and b of each client.
        router: with `n_hidden` units; 0 without one, and `pooled [B, 0]` then. alpha: `[B]`, the clients' weights.
        penalty: mu, lambda, edge; empty without one. lrs: of rows, head, router.
    """
    table = shared.table
    kind, width, d, routed = table.dtype.type, table.shape[1], head.values.shape[1] - 1, n_hidden > 0
    n_views = width // d
    most = np.int64(0)
    for s in range(len(samples.begins)):
        for c in range(len(alpha)):
            most = max(most, samples.indptr[s, c + 1] - samples.indptr[s, c])
    cells = Cells(np.empty(most, np.int64), np.empty(most, table.dtype), np.empty(most, table.dtype))
    row_of, number = np.empty(len(table), np.int64), np.full(len(table), -1, np.int64)
    rows = Rows(row_of, store.values, store.first, store.second)
    room = Room(
        np.empty(CHUNK, np.int64), np.empty(CHUNK, table.dtype), np.empty(CHUNK, table.dtype),
        np.empty(CHUNK, table.dtype), np.empty((CHUNK, d), table.dtype),
        np.empty(d, table.dtype), np.empty(d, table.dtype),
    )  # fmt: skip
    q, theta, weights = np.empty(width, table.dtype), np.empty(d, table.dtype), np.ones(n_views, table.dtype)
    grad_q, grad_theta, grad_head = np.empty(width, table.dtype), np.empty(d, table.dtype), np.empty(d + 1, table.dtype)
    mine = Step(q, theta, weights[: n_views if routed else 0], grad_q, grad_theta, np.empty(len(weights), table.dtype))
    hidden, grad_router = np.empty(n_hidden, table.dtype), np.empty(router.values.shape[1], table.dtype)
    for c in range(len(alpha)):
        for place in range(touched.indptr[c], touched.indptr[c + 1]):
            row_of[touched.items[place]] = touched.places[place]
        total, taken = kind(0), kind(0)
        for s in range(len(samples.begins)):
            begin, end = samples.begins[s] + samples.indptr[s, c], samples.begins[s] + samples.indptr[s, c + 1]
            if begin == end:
                continue
            n = distinct(samples.items, samples.labels, begin, end, number, cells)
            if routed:
                forward(router.values, pooled, c, hidden, weights)
            for k in range(d):
                theta[k] = head.values[c, k]
            for j in range(n_views):
                weight = weights[j]
                for k in range(d):
                    q[j * d + k] = weight * theta[k]
            store.steps[c] += 1
            loss, slope = client_step(
                shared, rows, cells, n, mine, head.values[c, d], kind(1) / kind(end - begin), alpha[c], penalty,
                lrs[0], store.steps[c], room,
            )  # fmt: skip
            for k in range(d):
                grad_head[k] = grad_theta[k]
            grad_head[d] = slope
            for j in range(n_views):
                weight, along = weights[j], kind(0)
                for k in range(d):
                    grad_head[k] += weight * grad_q[j * d + k]
                for k in range(d):
                    along += theta[k] * grad_q[j * d + k]
                mine.grad_weights[j] += along
            if routed:
                backward(router.values, pooled, c, hidden, weights, mine.grad_weights, grad_router, grad_pooled)
                router.steps[c] += 1
                descend(router.values, router.first, router.second, c, grad_router, lrs[2], router.steps[c])
            head.steps[c] += 1
            descend(head.values, head.first, head.second, c, grad_head, lrs[1], head.steps[c])
            total += loss
            taken += kind(1)
        losses[c] = total / max(taken, kind(1))
