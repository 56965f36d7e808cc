"""One local step of a block of linear heads with labelled samples (the closed form of `closed_form`), client by client.

    s = Q_c . F_i + b_c,   r = (sigmoid(s) - y) / n,   dL/dQ_c = sum r F_i,   dL/db_c = sum r,   uplink_i += alpha r Q_c

`sampled` goes over a client's samples; `residuals` leaves the three products to a library and does what lies between
them, for clients whose samples fill much of the catalogue. The cross-entropy of a sample is max(s, 0) - y s +
log(1 + exp(-|s|)); of some samples at once the logarithm is taken of the product. Clients are ragged, c's samples being
`indptr[c]:indptr[c + 1]`.
"""

from __future__ import annotations

import math

import numpy as np

from fedvlr_plugin.engines.compiled.jit import Float, Floats, Signed, fast, part

CHUNK = 64  # samples between whose two passes table rows stay in the first cache; 2**64 is a float32


@part
def logistic(score: Float, one: Float) -> tuple[Float, Float]:
    """sigmoid(score), and 1 + exp(-|score|); `one` is 1 of the wanted kind of number."""
    e = math.exp(-abs(score))
    whole = one + e
    return (one if score >= 0 else e) / whole, whole


@fast
def sampled(
    q: Floats,
    bias: Floats,
    table: Floats,
    items: Signed,
    labels: Floats,
    indptr: Signed,
    share: Floats,
    alpha: Floats,
    sums: Floats,
    losses: Floats,
    grad_q: Floats,
    grad_bias: Floats,
) -> None:
    """Fills `losses`, `grad_bias [B]` and `grad_q [B, w]`, and adds to `sums [n_items, w]`.

    Args:
        q: `[B, w]`. bias: `[B]`. table: `[n_items, w]`. items, labels: `[K]`. share: `[B]`, 1 / n. alpha: `[B]`.
    """
    zero, one, width = q.dtype.type(0), q.dtype.type(1), q.shape[1]
    score, label = np.empty(CHUNK, q.dtype), np.empty(CHUNK, q.dtype)
    for c in range(len(indptr) - 1):
        slope, loss, intercept, weight = zero, zero, bias[c], share[c]
        grad_q[c] = zero
        for begin in range(indptr[c], indptr[c + 1], CHUNK):
            n = min(CHUNK, indptr[c + 1] - begin)
            for j in range(n):
                i, total = items[begin + j], zero
                for k in range(width):
                    total += q[c, k] * table[i, k]
                score[j], label[j] = total, labels[begin + j]
            product = one
            for j in range(n):
                s, y = score[j] + intercept, label[j]
                probability, whole = logistic(s, one)
                loss += max(s, zero) - y * s
                product *= whole
                score[j] = (probability - y) * weight
                slope += score[j]
            loss += math.log(product)
            j = 0
            while j + 4 <= n:  # four at once: the gradient is read and written once for them
                r0, r1, r2, r3 = score[j], score[j + 1], score[j + 2], score[j + 3]
                i0, i1, i2, i3 = items[begin + j], items[begin + j + 1], items[begin + j + 2], items[begin + j + 3]
                for k in range(width):
                    grad_q[c, k] += (r0 * table[i0, k] + r1 * table[i1, k]) + (r2 * table[i2, k] + r3 * table[i3, k])
                j += 4
            while j < n:
                r0, i0 = score[j], items[begin + j]
                for k in range(width):
                    grad_q[c, k] += r0 * table[i0, k]
                j += 1
            for j in range(n):
                i, r0 = items[begin + j], alpha[c] * score[j]
                for k in range(width):
                    sums[i, k] += r0 * q[c, k]
        losses[c], grad_bias[c] = loss * weight, slope


@fast
def residuals(
    scores: Floats,
    items: Signed,
    labels: Floats,
    indptr: Signed,
    share: Floats,
    losses: Floats,
    grad_bias: Floats,
    out: Floats,
) -> None:
    """From the scores of all items `[B, n_items]`: the residual matrix `out [B, n_items]`, `losses`, `grad_bias [B]`."""
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    for c in range(len(indptr) - 1):
        slope, loss = zero, zero
        out[c] = zero
        for begin in range(indptr[c], indptr[c + 1], CHUNK):
            product = one
            for p in range(begin, min(begin + CHUNK, indptr[c + 1])):
                s, y = scores[c, items[p]], labels[p]
                probability, whole = logistic(s, one)
                loss += max(s, zero) - y * s
                product *= whole
                r = (probability - y) * share[c]
                slope += r
                out[c, items[p]] += r
            loss += math.log(product)
        losses[c], grad_bias[c] = loss * share[c], slope
