"""Krum and Multi-Krum (Blanchard et al., NeurIPS 2017): trust the uploads with the nearest neighbours.

A client's score is the sum of its n - f - 2 smallest squared distances to the others, f = floor(malicious * n). Krum
takes the client of the lowest score, Multi-Krum the n - f lowest. What is taken stands for the whole cohort:

    sum = (sum_u alpha_u) * (sum_{u taken} alpha_u g_u) / (sum_{u taken} alpha_u)

The promise needs n > 2 f + 2. Distances come from the Gram matrix, added up over chunks of items in float64.
A recommender's honest uploads touch different items and lie far apart, so Krum's one client is a poor stand-in for
all: the accuracy that it costs is part of what the attack bench shows. Imports `federation.uploads`.
"""

from __future__ import annotations

import torch

from fedvlr_plugin.federation.uploads import ClientUploads

CHUNK = 1 << 23


def squared_distances(uploads: ClientUploads) -> torch.Tensor:
    """`[B, B]` float64, between whole uploads."""
    shape, n_clients = uploads.shape, len(uploads.clients)
    layers = uploads.layers.double()
    gram = layers @ layers.t()
    items, order = uploads.items.sort(stable=True)
    step = max(1, CHUNK // (n_clients * shape.row_width))
    for start in range(0, shape.n_items, step):
        bounds = torch.searchsorted(items, torch.tensor([start, start + step], device=items.device)).tolist()
        here = order[bounds[0] : bounds[1]]
        if len(here):
            dense = gram.new_zeros(n_clients, step, shape.row_width)
            dense[uploads.owner[here], uploads.items[here] - start] = uploads.rows[here].double()
            flat = dense.view(n_clients, -1)
            gram += flat @ flat.t()
    squares = gram.diagonal()
    return (squares[:, None] + squares[None] - 2 * gram).clamp(min=0.0)


def chosen(uploads: ClientUploads, malicious: float, several: bool) -> torch.Tensor:
    """Which clients are taken, bool `[B]`; equal scores go to the lower user id."""
    n_clients = len(uploads.clients)
    liars = int(malicious * n_clients + 1e-9)
    taken = torch.zeros(n_clients, dtype=torch.bool, device=uploads.rows.device)
    distances = squared_distances(uploads).fill_diagonal_(torch.inf)
    near = min(max(n_clients - liars - 2, 1), n_clients - 1)
    scores = distances.sort(1).values[:, :near].sum(1)
    by_id = torch.argsort(uploads.clients)
    best = by_id[torch.argsort(scores[by_id], stable=True)]
    taken[best[: n_clients - liars if several else 1]] = True
    return taken


def combine(uploads: ClientUploads, weights: torch.Tensor, malicious: float, several: bool) -> torch.Tensor:
    """Weights `[B]` in float64 that make the rule a weighted sum: zero for whom it does not take."""
    weights = weights.double()
    kept = torch.where(chosen(uploads, malicious, several), weights, 0.0)
    return kept * (weights.sum() / kept.sum().clamp(min=torch.finfo(torch.float64).tiny))
