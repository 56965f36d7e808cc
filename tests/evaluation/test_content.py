"""Content scores against loops over users, items and history, and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.toy import make_toy

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.content import content_directions, content_scores
from fedvlr_plugin.evaluation.floors import CONTENT_FLOORS, FLOORS, rank_floor


def modality(name: str, rows: list[list[float]]) -> Modality:
    return Modality(name, np.array(rows, dtype=np.float32), np.ones(len(rows), bool), "made by hand")


def slow_scores(interactions: Interactions, features: ItemFeatures) -> np.ndarray:
    """The definition, one cosine at a time."""
    out = np.zeros((interactions.n_users, interactions.n_items))
    for user in range(interactions.n_users):
        history = interactions.history(user)
        for item in range(interactions.n_items):
            for each in features.values():
                centred = each.matrix.astype(float) - each.matrix.astype(float).mean(axis=0)
                for other in history:
                    a, b = centred[item], centred[other]
                    below = np.linalg.norm(a) * np.linalg.norm(b)
                    if below > 1e-12:
                        out[user, item] += a @ b / below / len(history) / len(features)
    return out


def test_scores_are_mean_cosines() -> None:
    data = make_toy(("vision", "text", "audio"))
    scores = content_scores(data.interactions, data.features)
    everyone = np.arange(data.interactions.n_users)
    np.testing.assert_allclose(scores(everyone), slow_scores(data.interactions, data.features), atol=1e-12)
    assert not scores(everyone)[0].any()  # an empty history


def test_by_hand() -> None:
    # two directions, the mean is zero: cosines are 1, -1 or 0
    features = ItemFeatures([modality("text", [[1, 0], [-1, 0], [0, 2], [0, -2]])])
    indptr = np.array([0, 2], dtype=np.int64)
    names = ("u0",), ("a", "b", "c", "d")
    data = Interactions(1, 4, indptr, np.array([0, 2]), np.array([1]), np.array([3]), *names)
    np.testing.assert_allclose(content_scores(data, features)(np.array([0])), [[0.5, -0.5, 0.5, -0.5]], atol=1e-12)


def test_an_item_at_the_mean_has_no_direction() -> None:
    features = ItemFeatures([modality("text", [[1, 0], [-1, 0], [0, 0]])])
    assert not content_directions(features)[2].any()
    assert np.isfinite(content_directions(features)).all()


def test_content_and_popularity_are_added_as_standard_scores() -> None:
    data = make_toy()
    ranks = rank_floor("content+popularity", data.interactions, "test", features=data.features)
    content = slow_scores(data.interactions, data.features)
    popular = np.log1p(data.interactions.train_counts)
    for row, (user, item) in enumerate(zip(ranks.users, ranks.items, strict=True)):
        own = content[user]
        own = (own - own.mean()) / own.std() if own.std() > 0 else 0 * own
        score = own + (popular - popular.mean()) / popular.std()
        masked = {*data.interactions.history(user), data.interactions.valid[user]} - {item}
        others = [i for i in range(data.interactions.n_items) if i not in masked and i != item]
        assert ranks.above[row] == sum(score[i] > score[item] + 1e-12 for i in others)


def test_floors_of_content_need_content() -> None:
    data = make_toy(())
    for name in FLOORS:
        if name in CONTENT_FLOORS:
            with pytest.raises(DataError, match="need item features"):
                rank_floor(name, data.interactions, "test", features=data.features)
        else:
            assert len(rank_floor(name, data.interactions, "test"))
