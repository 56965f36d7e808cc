"""The loss terms of the centralized models (`baselines.md` section 1)."""

from __future__ import annotations

import torch
from torch.nn import functional


def bpr(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """-mean log(1e-10 + sigmoid(s+ - s-))."""
    return -torch.log(1e-10 + torch.sigmoid(positive - negative)).mean()


def log_bpr(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """-mean logsigmoid(s+ - s-)."""
    return -functional.logsigmoid(positive - negative).mean()


def embedding_norms(*tables: torch.Tensor) -> torch.Tensor:
    """Un-squared Frobenius norms, added up, divided by the rows of the last argument."""
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / len(tables[-1])


def info_nce(
    first: torch.Tensor, second: torch.Tensor, temperature: float, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Cosine InfoNCE: row b of `first` against all rows of `second` `[B, d]`, its own the positive; mean over rows.

    `counts` `[B]`: how often each row stands for itself, as if it were repeated; the value is the same, for the work of
    the distinct rows only.
    """
    left, right = functional.normalize(first, dim=1) / temperature, functional.normalize(second, dim=1)
    logits = left @ right.T
    own = (left * right).sum(dim=1)
    if counts is None:
        return (torch.logsumexp(logits, dim=1) - own).mean()
    weights = counts.to(logits.dtype)
    return ((torch.logsumexp(logits + weights.log(), dim=1) - own) * weights).sum() / weights.sum()


def distance(online: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos(online, target) over rows."""
    return 1.0 - functional.cosine_similarity(online, target, dim=1).mean()
