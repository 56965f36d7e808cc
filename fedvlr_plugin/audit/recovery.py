"""How much of a client's private head and router its uplink gives away (algorithm.md sections 2, 4 and 11).

An uplink row of an item outside the history is a multiple of w_u ⊗ theta_u: the gradient with respect to the views of
an item that only occurs as a negative, F_ji, is r w_uj theta_u, and the part through the router's pooling touches items
of the history alone. In one local step the multiple is exact; over A epochs the rows are sums over slightly different
heads. From such rows, as a matrix `[G, d]`,

    M = leading direction of the rows  =  (w_u / |w_u|) ⊗ (theta_u / |theta_u|)

the first singular pair gives both: the router's weights w_u wholly (positive, summing to one), and the head up to its
length. The probe chooses the rows by itself: those on the side of the many (`probes`). Imports `probes`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fedvlr_plugin.audit.probes import leading_direction, oriented_direction


class Recovered(NamedTuple):
    """Guesses: the head's direction `[width]`, of length one, and the router's weights `[G]`, positive, summing to 1."""

    head: torch.Tensor
    router: torch.Tensor


def recover(rows: torch.Tensor, n_views: int) -> Recovered:
    """Head and router from the view rows `[n_items, n_views * width]` of an uplink."""
    rows = rows.double()
    coefficients = rows @ oriented_direction(rows)
    outside = rows[coefficients > 0]
    if not len(outside):
        outside = rows
    direction = leading_direction(outside)
    if float((outside @ direction).sum()) < 0:
        direction = -direction
    left, _, right = torch.linalg.svd(direction.view(n_views, -1), full_matrices=False)
    weights, head = left[:, 0], right[0]
    if float(weights.sum()) < 0:
        weights, head = -weights, -head
    weights = weights.clamp(min=0.0)
    return Recovered(head, weights / weights.sum())


def cosine(one: torch.Tensor, two: torch.Tensor) -> float:
    """Cosine of the angle between two vectors; 0 where one of them is zero."""
    lengths = float(torch.linalg.vector_norm(one.double()) * torch.linalg.vector_norm(two.double()))
    return float(one.double() @ two.double()) / lengths if lengths > 0 else 0.0


def correlation(guesses: torch.Tensor, truths: torch.Tensor) -> float:
    """Pearson's r of guessed and true weights `[n, G]`, each view's mean taken away: what makes clients differ.

    NaN where the truths, or the guesses, do not differ.
    """
    centred = [values.double() - values.double().mean(0) for values in (guesses, truths)]
    one, two = (values.reshape(-1) for values in centred)
    lengths = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(two))
    return float(one @ two) / lengths if lengths > 1e-12 else float("nan")
