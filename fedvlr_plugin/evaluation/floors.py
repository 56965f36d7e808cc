"""Rank without training: chance, popularity, cold-first, content, content+popularity (algorithm.md section 7).

The result is of type `Ranks`, so that metrics, tests and tables treat a floor like a model. `chance` has a closed form:
with C candidates, all tied, the positive has each of C ranks with equal probability, hence HR@k = k / C.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.data.interactions import IntArray, Interactions
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import unknown_name
from fedvlr_plugin.evaluation.content import as_scorer, content_scores
from fedvlr_plugin.evaluation.new_items import standardise
from fedvlr_plugin.evaluation.ranks import Phase, Ranks, Scorer, candidates, positives, rank_positives

FLOORS = ("chance", "popularity", "cold-first", "content", "content+popularity")
CONTENT_FLOORS = ("content", "content+popularity")


def rank_floor(
    name: str,
    interactions: Interactions,
    phase: Phase,
    *,
    mask_validation: bool = True,
    features: ItemFeatures | None = None,
) -> Ranks:
    """Rank the held-out items under a floor.

    Args:
        name: one of `FLOORS`:

            * `chance`: all candidates are tied;
            * `popularity`: the score of an item is the number of users who have it in training;
            * `cold-first`: items that nobody has in training first (tied), then popularity;
            * `content`: mean cosine to the user's history (`evaluation.content`);
            * `content+popularity`: the sum of `content` and log(1 + popularity), each standardised over the items.

        interactions: the data set.
        phase: `valid` or `test`.
        mask_validation: whether a user's validation item is excluded from the candidates at test.
        features: the item features; only the last two floors use them.

    Raises:
        UnknownNameError: there is no floor of that name.
        DataError: a floor of content without item features, or no user with a held-out item.
    """
    if name not in FLOORS:
        raise unknown_name("floor", name, FLOORS)
    if name == "chance":
        users, items = positives(interactions, phase)
        others = candidates(interactions, phase, mask_validation=mask_validation) - 1
        return Ranks(users, items, np.zeros_like(users), others, interactions.cold_items[items])
    if name in CONTENT_FLOORS:
        scorer = _content(interactions, features or ItemFeatures(), with_popularity=name == "content+popularity")
    else:
        scorer = _same_for_all(_counts(name, interactions))
    return rank_positives(scorer, interactions, phase, mask_validation=mask_validation)


def _counts(name: str, interactions: Interactions) -> IntArray:
    counts = interactions.train_counts
    if name == "popularity":
        return counts
    return np.where(interactions.cold_items, counts.max() + 1, counts)


def _same_for_all(scores: IntArray) -> Scorer:
    one_user = torch.from_numpy(scores.astype(np.float32))
    return lambda users: one_user.repeat(len(users), 1)


def _content(interactions: Interactions, features: ItemFeatures, with_popularity: bool) -> Scorer:
    content = as_scorer(content_scores(interactions, features))
    if not with_popularity:
        return content
    popularity = standardise(torch.from_numpy(np.log1p(interactions.train_counts))[None])
    return lambda users: standardise(content(users)) + popularity
