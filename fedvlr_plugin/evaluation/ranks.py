"""Rank the held-out item of each user among all candidates (algorithm.md section 6).

A rank is kept as two counts, `above` (candidates with a strictly higher score) and `tied` (candidates with an equal
score), so that every metric can average over ties and does not depend on a sort. Scores are computed in blocks of users
of limited size; masks are written into each block by index and never held for the whole data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fedvlr_plugin.data.interactions import BoolArray, IntArray, Interactions
from fedvlr_plugin.errors import DataError, FedVLRError

Phase = Literal["valid", "test"]
Scorer = Callable[[torch.Tensor], torch.Tensor]
"""users int64 `[B]` -> scores float32 or float64 `[B, n_items]`; the caller may change the result in place."""

BLOCK_BYTES = 16 * 1024**2


@dataclass(frozen=True, eq=False)
class Ranks:
    """One entry per user that has a held-out item in the phase, users ascending; all arrays `[n]`.

    Attributes:
        users: ids.
        items: ids of the held-out items.
        above: candidates scored strictly higher than the held-out item.
        tied: other candidates with exactly the same score.
        cold: true if the held-out item never occurs in training.
    """

    users: IntArray
    items: IntArray
    above: IntArray
    tied: IntArray
    cold: BoolArray

    def __post_init__(self) -> None:
        if len({len(self.users), len(self.items), len(self.above), len(self.tied), len(self.cold)}) != 1:
            raise DataError("the columns of a rank table differ in length")

    def __len__(self) -> int:
        return len(self.users)


def positives(interactions: Interactions, phase: Phase) -> tuple[IntArray, IntArray]:
    """Find the users with a held-out item.

    Args:
        interactions: the data set.
        phase: `valid` or `test`.

    Returns:
        User ids, ascending, and their held-out items, both `[n]`.

    Raises:
        DataError: no user has a held-out item in the phase.
    """
    held = interactions.valid if phase == "valid" else interactions.test
    users = np.flatnonzero(held >= 0)
    if not len(users):
        raise DataError(f"no user has a {phase} item, so nothing can be evaluated; check the split of the data set")
    return users, held[users]


def masked_pairs(
    interactions: Interactions, users: IntArray, phase: Phase, mask_validation: bool
) -> tuple[IntArray, IntArray]:
    """List the pairs that are excluded from the candidates.

    Args:
        interactions: the data set.
        users: ids `[B]`.
        phase: `valid` or `test`.
        mask_validation: whether the validation item is excluded at test, besides the training items.

    Returns:
        Positions in `users` and item ids, both `[n_masked]`. A pair may occur twice, and may equal the positive, which
        remains a candidate in any case.
    """
    sizes = interactions.train_sizes[users]
    positions = np.repeat(np.arange(len(users), dtype=np.int64), sizes)
    first = np.cumsum(sizes) - sizes
    pairs = np.arange(len(positions), dtype=np.int64) - np.repeat(first - interactions.train_indptr[users], sizes)
    items = interactions.train_items[pairs]
    if phase == "test" and mask_validation:
        held = interactions.valid[users]
        also = np.flatnonzero(held >= 0)
        positions, items = np.concatenate([positions, also]), np.concatenate([items, held[also]])
    return positions, items


def candidates(interactions: Interactions, phase: Phase, *, mask_validation: bool = True) -> IntArray:
    """Count each user's candidates, the positive included.

    Args:
        interactions: the data set.
        phase: `valid` or `test`.
        mask_validation: whether the validation item is excluded at test.

    Returns:
        `[n]`, in the order of `positives`.
    """
    users, items = positives(interactions, phase)
    n = interactions.n_items
    positions, masked = masked_pairs(interactions, users, phase, mask_validation)
    pairs = np.unique(positions * n + masked)
    pairs = pairs[pairs % n != items[pairs // n]]
    return n - np.bincount(pairs // n, minlength=len(users)).astype(np.int64)


def rank_positives(
    score: Scorer,
    interactions: Interactions,
    phase: Phase,
    *,
    mask_validation: bool = True,
    block_users: int | None = None,
    device: str | torch.device = "cpu",
) -> Ranks:
    """Rank every held-out item of a phase among all candidates.

    Training items are excluded in both phases. The positive itself always remains a candidate, even if it also occurs in
    training.

    Args:
        score: of the model.
        interactions: the data set.
        phase: `valid` or `test`.
        mask_validation: whether the validation item is excluded at test.
        block_users: users in a block; None for as many as fill about 16 MB of scores.
        device: of the user ids passed to `score`.

    Raises:
        DataError: no user has a held-out item in the phase.
        FedVLRError: scores are NaN or have the wrong shape.
    """
    users, items = positives(interactions, phase)
    block = block_users or max(1, BLOCK_BYTES // (4 * interactions.n_items))
    above, tied = np.empty_like(users), np.empty_like(users)
    with torch.no_grad():
        for start in range(0, len(users), block):
            part = slice(start, start + block)
            scores = _checked(score(torch.from_numpy(users[part]).to(device)), len(users[part]), interactions.n_items)
            mask = masked_pairs(interactions, users[part], phase, mask_validation)
            above[part], tied[part] = _count(scores, items[part], mask)
    return Ranks(users, items, above, tied, interactions.cold_items[items])


def _checked(scores: torch.Tensor, n_users: int, n_items: int) -> torch.Tensor:
    if scores.shape != (n_users, n_items) or not scores.is_floating_point():
        raise FedVLRError(
            f"a scorer must return floating-point scores [{n_users}, {n_items}], got {scores.dtype} {list(scores.shape)}"
        )
    if torch.isnan(scores.amax()):  # amax passes NaN on
        raise FedVLRError("the model's scores contain NaN, so no rank exists; lower the learning rates and run again")
    return scores.detach().contiguous()


def _count(scores: torch.Tensor, items: IntArray, mask: tuple[IntArray, IntArray]) -> tuple[IntArray, IntArray]:
    """Compute `above` and `tied` of one block. Masked scores become NaN, which is neither higher nor equal."""
    n_items = scores.shape[1]
    flat = scores.view(-1)
    positions = torch.from_numpy(np.arange(len(items)) * n_items + items).to(scores.device)
    positive = flat[positions]
    flat.index_fill_(0, torch.from_numpy(mask[0] * n_items + mask[1]).to(scores.device), float("nan"))
    flat[positions] = positive
    flags = torch.empty_like(scores)  # comparing into floats is several times faster than counting booleans
    above = torch.gt(scores, positive[:, None], out=flags).sum(dim=1)
    at_least = torch.ge(scores, positive[:, None], out=flags).sum(dim=1)
    return above.long().cpu().numpy(), (at_least - above - 1).long().cpu().numpy()
