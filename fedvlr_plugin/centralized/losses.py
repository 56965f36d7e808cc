"""The loss terms of the centralized models (`baselines.md` section 1)."""

from __future__ import annotations

import torch
from torch.nn import functional


def bpr(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Compute -mean log(1e-10 + sigmoid(s+ - s-)) of scores `[B]`."""
    return -torch.log(1e-10 + torch.sigmoid(positive - negative)).mean()


def log_bpr(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Compute -mean logsigmoid(s+ - s-) of scores `[B]`."""
    return -functional.logsigmoid(positive - negative).mean()


def embedding_norms(*tables: torch.Tensor) -> torch.Tensor:
    """Compute the sum of the (un-squared) Frobenius norms, divided by the number of vectors in the last table."""
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / len(tables[-1])


def info_nce(
    first: torch.Tensor, second: torch.Tensor, temperature: float, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the InfoNCE loss with cosine similarities, averaged over pairs.

    Args:
        first: vectors `[B, d]`.
        second: vectors `[B, d]`; vector b is the positive of vector b of `first`, the others are its negatives.
        temperature: divides the similarities, above 0.
        counts: `[B]`, how often each pair occurs. The result is that of repeated pairs, at the cost of distinct ones.
            None counts each once.
    """
    left, right = functional.normalize(first, dim=1) / temperature, functional.normalize(second, dim=1)
    logits = left @ right.T
    own = (left * right).sum(dim=1)
    if counts is None:
        return (torch.logsumexp(logits, dim=1) - own).mean()
    weights = counts.to(logits.dtype)
    return ((torch.logsumexp(logits + weights.log(), dim=1) - own) * weights).sum() / weights.sum()


def distance(online: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the mean of 1 - cos(online, target) over vectors `[B, d]`."""
    return 1.0 - functional.cosine_similarity(online, target, dim=1).mean()
