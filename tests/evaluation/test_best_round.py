"""The one rule of selection: strictly better, ties keep the first, patience counts validations without a gain."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fedvlr_plugin.evaluation.best_round import BestRound


def test_ties_keep_the_first_and_patience_is_used_up_by_them():
    best = BestRound(patience=2)
    assert [best.offer(number, score) for number, score in enumerate([1.0, 2.0, 2.0], start=1)] == [True, True, False]
    assert (best.number, best.score, best.waited, best.stop) == (2, 2.0, 1, False)
    best.offer_nothing()
    assert best.stop and best.number == 2
    assert best.offer(5, 2.5) and not best.stop and best.waited == 0


def test_a_score_that_is_not_a_number_is_never_the_best():
    best = BestRound(patience=None)
    assert not best.offer(1, math.nan) and best.score is None and best.number == 0
    assert best.offer(2, -5.0) and not best.offer(3, math.nan) and best.number == 2
    assert best.waited == 1 and not best.stop, "None never stops"


@given(st.lists(st.floats(-100, 100), min_size=1))
def test_it_is_the_first_of_the_highest(scores):
    best = BestRound()
    for number, score in enumerate(scores, start=1):
        best.offer(number, score)
    assert best.number == 1 + scores.index(max(scores)) and best.score == max(scores)
    assert best.waited == len(scores) - best.number
