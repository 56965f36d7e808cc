"""Clipping: a client's contribution to the sum has an L2 norm of at most C, whatever it uploads.

One vector per client, over everything it uploads (item rows and layers together), is scaled by min(1, C / norm).
An upload whose norm is not a finite number contributes nothing. The bound may follow a quantile of the norms (Andrew,
Thakkar, McMahan & Ramaswamy, "Differentially private learning with adaptive clipping", NeurIPS 2021):

    b = 1/2 + (sum over the cohort of ([norm <= C] - 1/2) + N(0, s^2)) / (q U),    C <- C exp(-0.2 (b - quantile))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from fedvlr_plugin.aggregation.uploads import ClientUploads

RATE = 0.2
COUNT_NOISE_SHARE = 0.05  # s as a share of the expected cohort, as in the paper above


@dataclass(frozen=True)
class Clipped:
    """The result of `clip`.

    Attributes:
        uploads: the clipped uploads, those that are not finite left out.
        within: number of clients whose upload was within the bound.
        over: number of those that were scaled down.
        refused: number of those that were not finite.
    """

    uploads: ClientUploads
    within: int
    over: int
    refused: int


def clip(uploads: ClientUploads, bound: float) -> Clipped:
    """Scale down every upload that is longer than the bound; those within it stay the same to the last bit.

    Args:
        uploads: the uploads of B clients.
        bound: C, above 0.
    """
    norms = uploads.norms()
    finite = torch.isfinite(norms)
    refused = int((~finite).sum())
    if refused:
        uploads, norms = uploads.only(finite), norms[finite]
    over = norms > bound
    if not bool(over.any()):
        return Clipped(uploads, len(norms), 0, refused)
    # rounding, to the uploads' type and in the norm, must not lift a clipped upload above the bound again
    dtype = uploads.rows.dtype
    safe = bound * (1.0 - max(4.0 * torch.finfo(dtype).eps, 1e-12))
    factors = torch.where(over, safe / norms.clamp(min=bound), 1.0)
    if float(factors.min()) > torch.finfo(dtype).tiny:
        scaled = uploads.times(factors)
    else:  # a factor too small for the uploads' type to hold exactly
        rows = (uploads.rows.double() * factors[uploads.owner, None]).to(dtype)
        scaled = replace(uploads, rows=rows, layers=(uploads.layers.double() * factors[:, None]).to(dtype))
    return Clipped(scaled, int((~over).sum()), int(over.sum()), refused)


@dataclass(frozen=True)
class Quantile:
    """Settings of adaptive clipping.

    Attributes:
        target: quantile of the norms that the bound follows, in (0, 1).
        count_noise: s, standard deviation of the noise on the count.
    """

    target: float
    count_noise: float


def adaptive_settings(target: float, noise_multiplier: float, expected: float) -> tuple[Quantile, float]:
    """Split the noise multiplier z of a round between the count and the sum.

    The count has sensitivity 1/2. Together the two are one Gaussian of multiplier z if the sum's is
    z_sum = (z^-2 - (2 s)^-2)^(-1/2), which needs s > z / 2. s is 5 % of the expected cohort, but at least z, which
    costs the sum at most 16 % more noise.

    Args:
        target: the quantile.
        noise_multiplier: z, at least 0.
        expected: q U, expected number of clients in a cohort.

    Returns:
        The settings, and z_sum.
    """
    s = max(COUNT_NOISE_SHARE * expected, noise_multiplier)
    if noise_multiplier == 0.0:
        return Quantile(target, 0.0), 0.0
    return Quantile(target, s), (noise_multiplier**-2 - (2.0 * s) ** -2) ** -0.5


def next_bound(
    bound: float, quantile: Quantile, within: int, over: int, expected: float, source: torch.Generator
) -> float:
    """Compute the bound of the next round from the noisy share of uploads within the present one.

    Args:
        bound: C of this round.
        quantile: settings of adaptive clipping.
        within: number of uploads within the bound.
        over: number of uploads over it.
        expected: q U.
        source: generator of the noise on the count.
    """
    noise = quantile.count_noise * float(torch.randn(1, dtype=torch.float64, generator=source))
    share = 0.5 + (0.5 * within - 0.5 * over + noise) / expected
    return bound * math.exp(-RATE * (share - quantile.target))
