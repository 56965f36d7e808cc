"""One local step of a block of linear heads over private item rows (the closed form of `folded_own`), client by client.

    s = Q_c . F_i + theta_c . P_ci + b_c,   R = W sigmoid(s) - P over the distinct items of the client's batch,
    dL/dQ_c = sum R F_i,   dL/dtheta_c += sum R P_ci,   dL/dP_ci = R theta_c,   uplink_i += alpha R Q_c

and, with e_i = sum_j w_j F_ji, a penalty of the form mu |e| - lambda min((P - e)^2, edge^2), a mean over items and width.
Each private row is read and stepped once. Clients are ragged as in `linear`. Imports `jit`, `linear`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.federation.compiled.jit import Float, Floats, Signed, compiled, fast
from fedvlr_plugin.federation.compiled.linear import logistic

CHUNK = 32  # items whose rows stay in the first cache from loop to loop
SCAN_UNTIL = 32  # items of the catalogue for each touched one up to which a scan is cheaper than a sort


class Samples(NamedTuple):
    """A step's samples: `items`, `labels [K]`, `indptr [b + 1]`, `share [b]`; and the clients' weights `alpha [b]`."""

    items: Signed
    labels: Floats
    indptr: Signed
    share: Floats
    alpha: Floats


class Shared(NamedTuple):
    """What clients receive and send: `table`, `sums [n_items, G d]`."""

    table: Floats
    sums: Floats


class Heads(NamedTuple):
    """`q [b, G d]`, `theta [b, d]`, `bias [b]`, and the router's `weights [b, G]` (`[b, 0]` without one)."""

    q: Floats
    theta: Floats
    bias: Floats
    weights: Floats


class Rows(NamedTuple):
    """Private rows of the block: `items [T]` and where each one's row is, `places [T]`, ragged by `indptr [B + 1]`.

    `values`, `first`, `second`: `[any, d]`, rows and Adam's moments (`[0, d]` under SGD).
    `rates [b, 2]`: lr / (1 - b1^t) and sqrt(1 - b2^t) at each client's step t; `[b, 0]`: lr under SGD.
    `constants`: b1, 1 - b1, b2, 1 - b2, eps, lr.
    """

    items: Signed
    places: Signed
    indptr: Signed
    values: Floats
    first: Floats
    second: Floats
    rates: Floats
    constants: Floats


class Gradients(NamedTuple):
    """What `step` fills: `losses`, `bias [b]`, `q [b, G d]`, `theta [b, d]`, and of the router's `weights [b, G]`."""

    losses: Floats
    q: Floats
    bias: Floats
    theta: Floats
    weights: Floats


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


@compiled
def distinct(
    items: Signed, labels: Floats, begin: int, end: int, number: Signed, cells: Signed, drawn: Floats, positive: Floats
) -> int:
    """The distinct items of the samples `begin:end`, in order of appearance: their number, which is returned.

    Fills `cells`, `drawn` (samples of each) and `positive`. `number [n_items]` is scratch: -1, and left so.
    """
    n = 0
    for p in range(begin, end):
        i = items[p]
        if number[i] < 0:
            number[i], cells[n], drawn[n], positive[n] = n, i, 0, 0
            n += 1
        drawn[number[i]] += 1
        positive[number[i]] += labels[p]
    for cell in range(n):
        number[cells[cell]] = -1
    return n


@fast
def step(samples: Samples, shared: Shared, heads: Heads, rows: Rows, penalty: Floats, out: Gradients) -> None:
    """One local step; changes the private rows in place and adds to `shared.sums`.

    Some items at a time, and each array of rows in a loop of its own: misses of one row do not wait for another's.

    Args:
        penalty: mu, lambda, edge; empty without one.
    """
    q, theta, bias, weights = heads.q, heads.theta, heads.bias, heads.weights
    table, sums, values, first, second = shared.table, shared.sums, rows.values, rows.first, rows.second
    grad_q, grad_theta, grad_weights = out.q, out.theta, out.weights
    zero, one, width, d = q.dtype.type(0), q.dtype.type(1), q.shape[1], theta.shape[1]
    pushed, aged = len(penalty) > 0, rows.rates.shape[1] > 0
    b1, to1, b2, to2 = rows.constants[0], rows.constants[1], rows.constants[2], rows.constants[3]
    eps, lr, root = rows.constants[4], rows.constants[5], one
    row_of, number = np.empty(len(table), np.int64), np.full(len(table), -1, np.int64)
    most = np.int64(0)
    for c in range(len(samples.indptr) - 1):
        most = max(most, samples.indptr[c + 1] - samples.indptr[c])
    cells, drawn, positive = np.empty(most, np.int64), np.empty(most, q.dtype), np.empty(most, q.dtype)
    at, r, grad = np.empty(CHUNK, np.int64), np.empty(CHUNK, q.dtype), np.empty((CHUNK, d), q.dtype)
    item, up = np.empty(d, q.dtype), np.empty(d, q.dtype)
    for c in range(len(samples.indptr) - 1):
        for place in range(rows.indptr[c], rows.indptr[c + 1]):
            row_of[rows.items[place]] = rows.places[place]
        n = distinct(
            samples.items, samples.labels, samples.indptr[c], samples.indptr[c + 1], number, cells, drawn, positive
        )
        grad_q[c], grad_theta[c], grad_weights[c] = zero, zero, zero
        share, alpha = samples.share[c], samples.alpha[c]
        slope, loss, each = zero, zero, one / q.dtype.type(max(n, 1) * d)
        if aged:
            lr, root = rows.rates[c, 0], one / rows.rates[c, 1]
        for begin in range(0, n, CHUNK):
            m = min(CHUNK, n - begin)
            for j in range(m):
                i, row, s = cells[begin + j], row_of[cells[begin + j]], bias[c]
                for k in range(width):
                    s += q[c, k] * table[i, k]
                for k in range(d):
                    s += theta[c, k] * values[row, k]
                at[j], r[j] = row, s
            for j in range(m):
                s, w, y = r[j], drawn[begin + j] * share, positive[begin + j] * share
                probability, whole = logistic(s, one)
                loss += w * (max(s, zero) + math.log(whole)) - y * s
                r[j] = w * probability - y
                slope += r[j]
            for j in range(m):
                i, row, residual = cells[begin + j], at[j], r[j]
                for k in range(width):
                    grad_q[c, k] += residual * table[i, k]
                for k in range(d):
                    grad_theta[c, k] += residual * values[row, k]
            for j in range(m):
                i, sending = cells[begin + j], alpha * r[j]
                for k in range(width):
                    sums[i, k] += sending * q[c, k]
            for j in range(m):
                residual = r[j]
                for k in range(d):
                    grad[j, k] = residual * theta[c, k]
            if pushed:
                for j in range(m):
                    loss += push(
                        table, sums, cells[begin + j], values, at[j], weights, grad_weights, c, alpha, each, penalty,
                        item, up, grad, j,
                    )  # fmt: skip
            if not aged:
                for j in range(m):
                    row = at[j]
                    for k in range(d):
                        values[row, k] -= lr * grad[j, k]
                continue
            for j in range(m):
                row = at[j]
                for k in range(d):
                    first[row, k] = b1 * first[row, k] + to1 * grad[j, k]
            for j in range(m):
                row = at[j]
                for k in range(d):
                    second[row, k] = b2 * second[row, k] + to2 * grad[j, k] * grad[j, k]
            for j in range(m):
                row = at[j]
                for k in range(d):
                    values[row, k] -= lr * first[row, k] / (math.sqrt(second[row, k]) * root + eps)
        out.losses[c], out.bias[c] = loss, slope


@fast
def push(
    table: Floats,
    sums: Floats,
    i: int,
    values: Floats,
    at: int,
    weights: Floats,
    grad_weights: Floats,
    c: int,
    alpha: Float,
    each: Float,
    penalty: Floats,
    item: Floats,
    up: Floats,
    grad: Floats,
    j: int,
) -> Float:
    """The penalty at item i and private row `at` of client c; its gradients go to `grad[j]`, `sums`, `grad_weights`.

    `item`, `up`: `[d]`, scratch for e_i and the derivative by it. `each`: 1 / (items of the batch * d).
    """
    mu, lam, edge = penalty[0], penalty[1], penalty[2]
    zero, one, d, n_views = table.dtype.type(0), table.dtype.type(1), len(item), weights.shape[1]
    for k in range(d):
        item[k] = table[i, k]
    if n_views > 0:
        for k in range(d):
            item[k] *= weights[c, 0]
        for view in range(1, n_views):
            for k in range(d):
                item[k] += weights[c, view] * table[i, view * d + k]
    value = zero
    for k in range(d):
        x = values[at, k] - item[k]
        far = abs(x) > edge
        capped = edge if far else x
        sign = one if item[k] > zero else (-one if item[k] < zero else zero)
        apart = lam * (zero if far else x + x)
        value += mu * abs(item[k]) - lam * capped * capped
        up[k] = each * (mu * sign + apart)
        grad[j, k] -= each * apart
    if n_views == 0:
        for k in range(d):
            sums[i, k] += alpha * up[k]
    for view in range(n_views):
        total, weight = zero, alpha * weights[c, view]
        for k in range(d):
            total += table[i, view * d + k] * up[k]
        for k in range(d):
            sums[i, view * d + k] += weight * up[k]
        grad_weights[c, view] += total
    return each * value
