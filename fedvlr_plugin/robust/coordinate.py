"""Coordinate-wise rules over sparse uploads: median (Yin et al., ICML 2018) and trimmed mean.

An item row is touched by few clients and is zero in all other uploads, so a median over all clients would be zero
nearly everywhere and nothing would be learned. So each item row is decided by the k clients that touched it, and
weighs what they weigh together:

    sum_row = (sum_{u in touched} alpha_u) * robust_mean_{u in touched}(g_u)

Where all of them upload the same row this is the weighted sum. Votes count the same whatever a client says its
n_u is, or a liar would only have to claim many samples. The price of the choice: on a row that more liars than
honest clients touched, the liars decide. Layers are touched by all. Imports `federation.uploads`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fedvlr_plugin.federation.uploads import ClientUploads

CHUNK = 1 << 22
Middle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""values `[k_max, m, w]` sorted over the first axis, padded with inf, and counts `[m]` -> `[m, w]`."""


def median(ordered: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The middle value, the mean of the two middle ones where the count is even."""
    low, high = (counts - 1) // 2, counts // 2
    at = [i.view(1, -1, 1).expand(1, -1, ordered.shape[2]) for i in (low, high)]
    return (ordered.gather(0, at[0])[0] + ordered.gather(0, at[1])[0]) / 2


def trimmed_mean(share: float) -> Middle:
    """The mean without the floor(share * k) smallest and as many largest values; at least one is left."""

    def middle(ordered: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        cut = (counts * share + 1e-9).long()
        rank = torch.arange(len(ordered), device=ordered.device)[:, None]
        kept = (rank >= cut) & (rank < counts - cut)
        return torch.where(kept[:, :, None], ordered, 0.0).sum(0) / (counts - 2 * cut)[:, None]

    return middle


def combine(uploads: ClientUploads, weights: torch.Tensor, middle: Middle) -> dict[str, torch.Tensor]:
    """The rule over all clients, weights alpha_u `[B]`; shapes of the broadcast."""
    shape, rows = uploads.shape, uploads.rows
    items, order = uploads.items.sort(stable=True)
    counts = torch.bincount(items, minlength=shape.n_items)
    first = torch.cumsum(counts, 0) - counts
    mass = rows.new_zeros(shape.n_items, dtype=torch.float64)
    mass.index_add_(0, uploads.items, weights[uploads.owner].double())
    out = rows.new_zeros(shape.n_items, shape.row_width)
    chosen = torch.argsort(counts, descending=True, stable=True)  # chunks of items with like counts waste no padding
    chosen = chosen[: int((counts > 0).sum())]
    while len(chosen):
        deepest = int(counts[chosen[0]])
        part = chosen[: max(1, CHUNK // (deepest * shape.row_width))]
        chosen = chosen[len(part) :]
        rank = torch.arange(deepest, device=rows.device)[:, None]
        there = rank < counts[part]
        place = torch.where(there, first[part] + rank, 0)
        values = torch.where(there[:, :, None], rows[order[place]], torch.inf)
        out[part] = middle(values.sort(0).values, counts[part]) * mass[part, None].to(rows.dtype)
    return shape.unflatten(out, _layers(uploads, weights, middle))


def _layers(uploads: ClientUploads, weights: torch.Tensor, middle: Middle) -> torch.Tensor:
    n_clients, width = uploads.layers.shape
    step = max(1, CHUNK // n_clients)
    parts = [uploads.layers[:, :0].sum(0)]
    count = torch.tensor([n_clients], device=uploads.layers.device)
    for start in range(0, width, step):
        ordered = uploads.layers[:, start : start + step].sort(0).values
        parts.append(middle(ordered[:, None, :], count)[0])
    return torch.cat(parts) * float(weights.double().sum())
