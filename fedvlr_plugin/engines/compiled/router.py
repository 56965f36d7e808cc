"""The router of one client, forward and backward, on flat parameters (the equations are in `fusion.router`).

Parameters of client c are `params[c]`: W1 `[H, Gd]`, b1 `[H]`, W2 `[G, H]`, b2 `[G]`, one after the other.
"""

from __future__ import annotations

import math

from fedvlr_plugin.engines.compiled.jit import Floats, part


@part
def forward(params: Floats, pooled: Floats, c: int, hidden: Floats, weights: Floats) -> None:
    """Fills `hidden [H]` and `weights [G]` of client c, from `params [B, P]` and `pooled [B, Gd]`."""
    wide, n_hidden, n_views, zero = pooled.shape[1], len(hidden), len(weights), params.dtype.type(0)
    after = n_hidden * wide
    for h in range(n_hidden):
        total = params[c, after + h]
        for k in range(wide):
            total += params[c, h * wide + k] * pooled[c, k]
        hidden[h] = zero if total < zero else total
    after += n_hidden
    bias = after + n_views * n_hidden
    most, whole = zero, zero
    for j in range(n_views):
        total = params[c, bias + j]
        for h in range(n_hidden):
            total += params[c, after + j * n_hidden + h] * hidden[h]
        weights[j] = total
        most = total if j == 0 else max(most, total)
    for j in range(n_views):
        weights[j] = math.exp(weights[j] - most)
        whole += weights[j]
    for j in range(n_views):
        weights[j] /= whole


@part
def backward(
    params: Floats,
    pooled: Floats,
    c: int,
    hidden: Floats,
    weights: Floats,
    grad_weights: Floats,
    grad: Floats,
    grad_pooled: Floats,
) -> None:
    """From dL/dw `[G]`: fills dL/dparameters `grad [P]`, and adds dL/dp to `grad_pooled[c]`."""
    wide, n_hidden, n_views, zero = pooled.shape[1], len(hidden), len(weights), params.dtype.type(0)
    bias1, w2 = n_hidden * wide, n_hidden * (wide + 1)
    bias2 = w2 + n_views * n_hidden
    mean = zero
    for j in range(n_views):
        mean += weights[j] * grad_weights[j]
    for j in range(n_views):
        grad[bias2 + j] = weights[j] * (grad_weights[j] - mean)
    for h in range(n_hidden):
        total, active = zero, hidden[h] > zero
        for j in range(n_views):
            logit = grad[bias2 + j]
            grad[w2 + j * n_hidden + h] = logit * hidden[h]
            if active:
                total += logit * params[c, w2 + j * n_hidden + h]
        grad[bias1 + h] = total
        for k in range(wide):
            grad[h * wide + k] = total * pooled[c, k]
        for k in range(wide):
            grad_pooled[c, k] += total * params[c, h * wide + k]
