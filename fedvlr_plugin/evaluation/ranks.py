"""Where the held-out item of each user stands among all candidates (algorithm.md section 6).

A rank is kept as two counts, `above` (candidates with a strictly higher score) and `tied` (candidates with an equal
score), so that every metric can average over ties instead of depending on a sort. Scores are asked for in blocks of
users sized by memory; masks are written into the block by index, never held for the whole data set.
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
        users, items: ids of the user and of the held-out item.
        above: candidates scored strictly higher than the held-out item.
        tied: other candidates scored exactly as it is.
        cold: true where the held-out item never occurs in training.
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
    """Users with a held-out item in the phase, ascending, and that item; raises `DataError` if there is none."""
    held = interactions.valid if phase == "valid" else interactions.test
    users = np.flatnonzero(held >= 0)
    if not len(users):
        raise DataError(f"no user has a {phase} item, so nothing can be evaluated; check the split of the data set")
    return users, held[users]


def masked_pairs(
    interactions: Interactions, users: IntArray, phase: Phase, mask_validation: bool
) -> tuple[IntArray, IntArray]:
    """Pairs that are no candidates: training items, at test also the validation item if `mask_validation`.

    Returns:
        `(rows, items)`, both `[n_masked]`; `rows` indexes `users`. A pair may occur twice, and may equal the
        positive, which stays a candidate all the same.
    """
    sizes = interactions.train_sizes[users]
    rows = np.repeat(np.arange(len(users), dtype=np.int64), sizes)
    first = np.cumsum(sizes) - sizes
    where = np.arange(len(rows), dtype=np.int64) - np.repeat(first - interactions.train_indptr[users], sizes)
    items = interactions.train_items[where]
    if phase == "test" and mask_validation:
        held = interactions.valid[users]
        also = np.flatnonzero(held >= 0)
        rows, items = np.concatenate([rows, also]), np.concatenate([items, held[also]])
    return rows, items


def candidates(interactions: Interactions, phase: Phase, *, mask_validation: bool = True) -> IntArray:
    """Number of items each user's positive competes with, itself included, parallel to `positives`."""
    users, items = positives(interactions, phase)
    n = interactions.n_items
    rows, masked = masked_pairs(interactions, users, phase, mask_validation)
    pairs = np.unique(rows * n + masked)
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
    """Ranks every held-out item of the phase among all unmasked items.

    Training items are masked in both phases, the validation item at test if `mask_validation`. The positive itself is
    never masked, even where it also occurs in training.

    Args:
        score: the model. device: where the users passed to it live.
        block_users: users per block; None = as many as fill about 16 MB of scores.

    Raises:
        DataError: nobody has a held-out item in the phase. FedVLRError: scores are NaN or of the wrong shape.
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
    """`above` and `tied` of one block. Masked entries become NaN, which compares neither higher nor equal."""
    n_items = scores.shape[1]
    flat = scores.view(-1)
    where = torch.from_numpy(np.arange(len(items)) * n_items + items).to(scores.device)
    positive = flat[where]
    flat.index_fill_(0, torch.from_numpy(mask[0] * n_items + mask[1]).to(scores.device), float("nan"))
    flat[where] = positive
    flags = torch.empty_like(scores)  # comparing into floats is several times faster than counting booleans
    above = torch.gt(scores, positive[:, None], out=flags).sum(dim=1)
    at_least = torch.ge(scores, positive[:, None], out=flags).sum(dim=1)
    return above.long().cpu().numpy(), (at_least - above - 1).long().cpu().numpy()
