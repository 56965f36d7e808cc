"""The bonus for new items: standard scores by hand, and the bonus as an order of items."""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.evaluation.choice import choose
from fedvlr_plugin.evaluation.new_items import BONUSES, standardise, with_bonus
from fedvlr_plugin.evaluation.ranks import Ranks


def test_standard_scores_by_hand() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [0.1, 0.1, 0.1]])
    high = np.sqrt(1.5)
    expected = [[-high, 0.0, high], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(standardise(scores).numpy(), expected, atol=1e-12)
    assert standardise(scores).dtype == torch.float64


def test_standard_scores_do_not_depend_on_scale_and_place() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 9)))
    torch.testing.assert_close(standardise(7.0 * scores - 100.0), standardise(scores))


def test_bonus_lifts_new_items_only() -> None:
    cold = np.array([False, True, False])
    scorer = with_bonus(lambda users: torch.tensor([[3.0, 1.0, 2.0]]).repeat(len(users), 1), cold, 2.0)
    high = np.sqrt(1.5)
    np.testing.assert_allclose(scorer(torch.tensor([0])).numpy(), [[high, 2.0 - high, 0.0]], atol=1e-12)


def test_without_an_effect_no_bonus_is_chosen() -> None:
    ranks = Ranks(*(np.array([value]) for value in (0, 0, 3, 0)), np.array([False]))
    choice = choose({"b": BONUSES}, lambda point: ranks)
    assert choice.point == {"b": 0.0}
    assert choice.tried == len(BONUSES)


def test_choice_takes_the_best_and_the_earlier_of_equals() -> None:
    above = {(1.0, 1.0): 9, (1.0, 2.0): 4, (2.0, 1.0): 4, (2.0, 2.0): 60}

    def validate(point: dict[str, float]) -> Ranks:
        return Ranks(*(np.array([v]) for v in (0, 0, above[point["x"], point["y"]], 0)), np.array([False]))

    assert choose({"x": (1.0, 2.0), "y": (1.0, 2.0)}, validate).point == {"x": 1.0, "y": 2.0}
