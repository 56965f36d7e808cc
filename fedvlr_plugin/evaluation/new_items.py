"""Add a bonus for new items to any scorer: how much of a result is the discovery that never-trained items come next.

    z_ui = (s_ui - mean_i s_ui) / sd_i s_ui,    s'_ui = z_ui + b * [item i never occurs in training]

b is one number for all users, chosen by validation. It knows nothing of an item but that nobody has it yet. Where
held-out items are often new (KU: 43 % of the test positives), no row may be praised for finding them that does not
beat this one.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.data.interactions import BoolArray
from fedvlr_plugin.evaluation.ranks import Scorer

BONUSES: tuple[float, ...] = (0.0, -2.0, -1.0, -0.5, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Values of b that are tried, none first: where no item is new all are equal, and ties go to the first."""


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Every user's scores with mean 0 and standard deviation 1 over all items; all zero where they do not differ.

    Args:
        scores: `[B, n_items]`, floating point.

    Returns:
        `[B, n_items]`, float64.
    """
    values = scores.double()
    centred = values - values.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    size = values.abs().amax(dim=1, keepdim=True)
    flat = spread <= 1e-12 * size  # equal but for rounding
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, spread))


def with_bonus(scorer: Scorer, cold: BoolArray, bonus: float) -> Scorer:
    """The standardised scores of `scorer`, `bonus` added for every item that never occurs in training.

    Args:
        scorer: the model.
        cold: `[n_items]`, true for items that never occur in training.
        bonus: b, in standard deviations of a user's scores.
    """
    added = torch.from_numpy(bonus * cold.astype(np.float64))
    return lambda users: standardise(scorer(users)) + added.to(users.device)
