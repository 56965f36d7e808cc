"""Local epochs of a block of linear heads with private item vectors (the closed form of `closed_form_private`).

    s = Q . F_i + theta . P_i + b,   R = W sigmoid(s) - P over the distinct items of the batch,
    dL/dQ = sum R F_i,   dL/dtheta += sum R P_i,   dL/dP_i = R theta,   uplink_i += alpha R Q

and, with e_i = sum_j w_j F_ji, a penalty of the form mu |e| - lambda min((P - e)^2, edge^2), a mean over items and width.
Each private vector is read and stepped once a step.

`train` goes client after client, so that a client's vectors stay in cache from its first step to its last. Each step: the
router's weights (where there is one), Q of head and router, `client_step`, and the optimiser's steps of router and head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.engines.compiled.jit import Float, Floats, Signed, fast, part
from fedvlr_plugin.engines.compiled.linear import logistic
from fedvlr_plugin.engines.compiled.optimizers import descend, rates
from fedvlr_plugin.engines.compiled.router import backward, forward
from fedvlr_plugin.engines.compiled.touched_items import Cells, distinct
from fedvlr_plugin.engines.optimizers import BETA1, BETA2, EPS

CHUNK = 32  # items whose rows stay in the first cache from loop to loop


class Shared(NamedTuple):
    """What clients receive and send: `table`, `sums [n_items, G d]`."""

    table: Floats
    sums: Floats


class Rows(NamedTuple):
    """Private vectors: `values [any, d]`, Adam's moments (`[0, d]` under SGD), and the row of each item's, `row_of`."""

    row_of: Signed
    values: Floats
    first: Floats
    second: Floats


class Step(NamedTuple):
    """A client's `q [G d]`, `theta [d]` and router `weights [G]` (`[0]` without one), and the gradients by all three."""

    q: Floats
    theta: Floats
    weights: Floats
    grad_q: Floats
    grad_theta: Floats
    grad_weights: Floats


class Room(NamedTuple):
    """Scratch: rows, residuals and cells of a chunk's items `[CHUNK]`, gradients by their vectors `[CHUNK, d]`; two `[d]`."""

    row: Signed
    residual: Floats
    drawn: Floats
    positive: Floats
    grad: Floats
    item: Floats
    up: Floats


@part
def client_step(
    shared: Shared,
    rows: Rows,
    cells: Cells,
    n: int,
    client: Step,
    bias: Float,
    share: Float,
    alpha: Float,
    penalty: Floats,
    lr: float,
    age: int,
    room: Room,
) -> tuple[Float, Float]:
    """One local step over n distinct items: the loss and dL/db. Changes `rows` and `client`, adds to `shared.sums`.

    A chunk of items at a time, and a separate loop for each array: a cache miss of one does not wait for another's.

    Args:
        share: 1 / samples of the batch. penalty: mu, lambda, edge; empty without one. age: counts this step.
    """
    q, theta, grad_q, grad_theta = client.q, client.theta, client.grad_q, client.grad_theta
    table, sums, values, first, second = shared.table, shared.sums, rows.values, rows.first, rows.second
    row_at, r, drawn, positive, grad = room.row, room.residual, room.drawn, room.positive, room.grad
    kind, width, d = q.dtype.type, len(q), len(theta)
    zero, one = kind(0), kind(1)
    keep1, take1, keep2, take2, eps = kind(BETA1), kind(1.0 - BETA1), kind(BETA2), kind(1.0 - BETA2), kind(EPS)
    plain = kind(lr)
    rate, root = rates(lr, age, q)
    grad_q[:], grad_theta[:], client.grad_weights[:] = zero, zero, zero
    slope, loss, each = zero, zero, one / kind(max(n, 1) * d)
    for begin in range(0, n, CHUNK):
        m = min(CHUNK, n - begin)
        for j in range(m):
            i, s = cells.items[begin + j], bias
            row = rows.row_of[i]
            for k in range(width):
                s += q[k] * table[i, k]
            for k in range(d):
                s += theta[k] * values[row, k]
            row_at[j], r[j], drawn[j], positive[j] = row, s, cells.drawn[begin + j], cells.positive[begin + j]
        for j in range(m):
            s, w, y = r[j], drawn[j] * share, positive[j] * share
            probability, whole = logistic(s, one)
            loss += w * (max(s, zero) + math.log(whole)) - y * s
            r[j] = w * probability - y
            slope += r[j]
        for j in range(m):
            i, row, residual = cells.items[begin + j], row_at[j], r[j]
            for k in range(width):
                grad_q[k] += residual * table[i, k]
            for k in range(d):
                grad_theta[k] += residual * values[row, k]
        for j in range(m):
            i, sending = cells.items[begin + j], alpha * r[j]
            for k in range(width):
                sums[i, k] += sending * q[k]
        for j in range(m):
            residual = r[j]
            for k in range(d):
                grad[j, k] = residual * theta[k]
        if len(penalty) > 0:
            for j in range(m):
                loss += push(shared, cells.items[begin + j], values, row_at[j], client, alpha, each, penalty, room, j)
        if len(first) == 0:
            for j in range(m):
                row = row_at[j]
                for k in range(d):
                    values[row, k] -= plain * grad[j, k]
            continue
        for j in range(m):
            row = row_at[j]
            for k in range(d):
                first[row, k] = keep1 * first[row, k] + take1 * grad[j, k]
        for j in range(m):
            row = row_at[j]
            for k in range(d):
                second[row, k] = keep2 * second[row, k] + take2 * grad[j, k] * grad[j, k]
        for j in range(m):
            row = row_at[j]
            for k in range(d):
                values[row, k] -= rate * first[row, k] / (math.sqrt(second[row, k]) * root + eps)
    return loss, slope


@part
def push(
    shared: Shared,
    i: int,
    values: Floats,
    row: int,
    client: Step,
    alpha: Float,
    each: Float,
    penalty: Floats,
    room: Room,
    j: int,
) -> Float:
    """The penalty at item i and private vector `row`; its gradients go to `room.grad[j]`, the sums, and `client.grad_weights`.

    `each`: 1 / (items of the batch * d).
    """
    table, sums, weights, item, up, grad = shared.table, shared.sums, client.weights, room.item, room.up, room.grad
    mu, lam, edge = penalty[0], penalty[1], penalty[2]
    zero, one, d, n_views = table.dtype.type(0), table.dtype.type(1), len(item), len(weights)
    for k in range(d):
        item[k] = table[i, k]
    if n_views > 0:
        weight = weights[0]
        for k in range(d):
            item[k] *= weight
        for view in range(1, n_views):
            weight = weights[view]
            for k in range(d):
                item[k] += weight * table[i, view * d + k]
    value = zero
    for k in range(d):
        x = values[row, k] - item[k]
        far = abs(x) > edge
        capped = edge if far else x
        sign = one if item[k] > zero else (-one if item[k] < zero else zero)
        toward = lam * (zero if far else x + x)
        value += mu * abs(item[k]) - lam * capped * capped
        up[k] = each * (mu * sign + toward)
        grad[j, k] -= each * toward
    if n_views == 0:
        for k in range(d):
            sums[i, k] += alpha * up[k]
    for view in range(n_views):
        total, weight = zero, alpha * weights[view]
        for k in range(d):
            total += table[i, view * d + k] * up[k]
        for k in range(d):
            sums[i, view * d + k] += weight * up[k]
        client.grad_weights[view] += total
    return each * value


class Samples(NamedTuple):
    """All samples of a block's round: `items`, `labels [K]`; step s of client c has `begins[s] + indptr[s, c:c + 2]`."""

    items: Signed
    labels: Floats
    begins: Signed
    indptr: npt.NDArray[np.int64]


class Touched(NamedTuple):
    """Ragged by client, `indptr [B + 1]`: the `items` that its steps name, and the row of each one's private vector."""

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
    """Train the block in place, add to `shared.sums` and `grad_pooled [B, G d]`, fill the mean `losses [B]`.

    Args:
        samples: all samples of the round.
        touched: the items that they name.
        shared: views and the sum of uploads.
        store: private item vectors, `[any, d]`.
        head: theta [d] and b of each client.
        router: with `n_hidden` units; 0 without one, and `pooled [B, 0]` then.
        n_hidden: see `router`.
        pooled: pooled histories, `[B, G d]`.
        grad_pooled: the gradient by them is added here.
        alpha: `[B]`, the clients' weights.
        penalty: mu, lambda, edge; empty without one.
        lrs: learning rates of item vectors, head, router.
        losses: `[B]`, to be filled.
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
    client = Step(
        q, theta, weights[: n_views if routed else 0], grad_q, grad_theta, np.empty(len(weights), table.dtype)
    )
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
                shared, rows, cells, n, client, head.values[c, d], kind(1) / kind(end - begin), alpha[c], penalty,
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
                client.grad_weights[j] += along
            if routed:
                backward(router.values, pooled, c, hidden, weights, client.grad_weights, grad_router, grad_pooled)
                router.steps[c] += 1
                descend(router.values, router.first, router.second, c, grad_router, lrs[2], router.steps[c])
            head.steps[c] += 1
            descend(head.values, head.first, head.second, c, grad_head, lrs[1], head.steps[c])
            total += loss
            taken += kind(1)
        losses[c] = total / max(taken, kind(1))
