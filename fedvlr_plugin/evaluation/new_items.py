"""Add a bonus for new items to the scores of a model, to measure how much of a result comes from their novelty alone.

    z_ui = (s_ui - mean_i s_ui) / sd_i s_ui,    s'_ui = z_ui + b * [item i never occurs in training]

b is one number for all users, chosen by validation. The bonus uses no property of an item except that no user has it in
training. Where many held-out items are new (KU: 43 % of the test positives), a model finds them only if it beats this
control.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.data.interactions import BoolArray
from fedvlr_plugin.evaluation.ranks import Scorer

BONUSES: tuple[float, ...] = (0.0, -2.0, -1.0, -0.5, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Values of b to try. 0 comes first: without new items all give equal results, and ties keep the first."""


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Scale each user's scores to mean 0 and standard deviation 1 over all items; equal scores become 0.

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
    """Return a scorer that standardises the scores of another and adds a bonus to items that never occur in training.

    Args:
        scorer: of the model.
        cold: `[n_items]`, true for items that never occur in training.
        bonus: b, in standard deviations of a user's scores.
    """
    added = torch.from_numpy(bonus * cold.astype(np.float64))
    return lambda users: standardise(scorer(users)) + added.to(users.device)
