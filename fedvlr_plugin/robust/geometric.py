"""The geometric median of uploads (Pillutla et al., IEEE TSP 2022): the point with the least sum of distances to all.

    z = argmin_z sum_u |g_u - z|

Found by Weiszfeld's iteration, beta_u = (1 / |g_u - z|) / sum_v (1 / |g_v - z|), z = sum_u beta_u g_u. Since z stays
a weighted mean of the uploads, only the pairwise squared distances D of `krum` are needed and the betas are iterated:

    |g_u - z|^2 = (D beta)_u - beta^T D beta / 2

Where the least sum lies at an upload itself (many equal ones), the iteration would crawl; that is decided first, by
the size of the sum of unit vectors that pull away from it. Votes count the same whatever a client says its n_u is;
what comes out stands for the whole cohort, sum = (sum_u alpha_u) z. Less than half of the clients cannot move z
further than honest uploads are apart. Imports `krum`, `federation.uploads`.
"""

from __future__ import annotations

import torch

from fedvlr_plugin.federation.uploads import ClientUploads
from fedvlr_plugin.robust.krum import squared_distances

STEPS = 10_000
STILL = 1e-13
SAME = 1e-12


def combine(uploads: ClientUploads, weights: torch.Tensor) -> torch.Tensor:
    """Weights `[B]` in float64 that make the geometric median a weighted sum: beta_u * sum of `weights`."""
    squares = uploads.norms().square()
    distances = squared_distances(uploads)
    distances[distances <= SAME * (squares[:, None] + squares[None])] = 0.0
    return median_weights(distances) * weights.double().sum()


def median_weights(distances: torch.Tensor) -> torch.Tensor:
    """beta `[B]`, at least 0, of sum 1, from squared distances `[B, B]` in float64."""
    n_points = len(distances)
    lengths = distances.sqrt()
    best = int(lengths.sum(1).argmin())
    if _is_least(distances, lengths[best], best):
        return torch.zeros(n_points, dtype=distances.dtype, device=distances.device).index_fill(
            0, torch.tensor([best], device=distances.device), 1.0
        )
    beta = distances.new_full((n_points,), 1.0 / n_points)
    for _ in range(STEPS):
        across = distances @ beta
        to_middle = (across - (beta @ across) / 2).clamp(min=0.0).sqrt()
        pull = 1.0 / to_middle.clamp(min=torch.finfo(distances.dtype).tiny ** 0.5)
        following = pull / pull.sum()
        moved = float((following - beta).abs().max())
        beta = following
        if moved < STILL:
            break
    return beta


def _is_least(distances: torch.Tensor, lengths: torch.Tensor, point: int) -> bool:
    """Whether the sum of distances is least at an upload: the others' unit pulls are no longer than its own count."""
    apart = lengths > 0
    pulls = torch.where(apart, 1.0 / lengths.clamp(min=torch.finfo(lengths.dtype).tiny), 0.0)
    inner = (distances[point][:, None] + distances[point][None] - distances) / 2
    return bool(pulls @ inner @ pulls <= (~apart).sum().double().square())
