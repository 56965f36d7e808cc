"""What needs no learning at all: chance, popularity and cold-first (algorithm.md section 7).

A floor is given as `Ranks`, so that metrics, tests and tables treat it like a model. For `chance` this is the closed
form: with C candidates, all tied, the positive is at each of C ranks with equal probability, hence HR@k = k / C.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.errors import unknown_name
from fedvlr_plugin.evaluation.ranks import Phase, Ranks, candidates, positives, rank_positives

FLOORS = ("chance", "popularity", "cold-first")


def rank_floor(name: str, interactions: Interactions, phase: Phase, *, mask_validation: bool = True) -> Ranks:
    """Ranks of the held-out items under the floor called `name`; raises `UnknownNameError` for another name.

    * `chance`: all candidates are tied.
    * `popularity`: the score of an item is the number of users who have it in training.
    * `cold-first`: items that nobody has in training first (tied), then popularity.
    """
    if name == "chance":
        users, items = positives(interactions, phase)
        others = candidates(interactions, phase, mask_validation=mask_validation) - 1
        return Ranks(users, items, np.zeros_like(users), others, interactions.cold_items[items])
    counts = interactions.train_counts
    if name == "popularity":
        scores = counts
    elif name == "cold-first":
        scores = np.where(interactions.cold_items, counts.max() + 1, counts)
    else:
        raise unknown_name("floor", name, FLOORS)
    row = torch.from_numpy(scores.astype(np.float32))
    return rank_positives(
        lambda users: row.repeat(len(users), 1), interactions, phase, mask_validation=mask_validation
    )  # fmt: skip
