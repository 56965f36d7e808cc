"""The planted data set is known and repeatable."""

import numpy as np

from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.synthetic import PlantedSource


def test_planted_is_known_and_repeatable():
    one, two = PlantedSource(), PlantedSource()
    assert np.array_equal(one.weights, two.weights) and one.interactions().equals(two.interactions())
    assert np.allclose(one.weights.sum(1), 1) and (one.weights.max(1) > 0.7).mean() > 0.5
    data = prepare("planted")
    tokens = data.interactions.user_tokens
    assert np.array_equal(one.weights_of(tokens)[3], one.weights[int(tokens[3][1:])])
