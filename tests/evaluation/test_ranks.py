"""Ranks: golden by hand, masks per phase, and against a slow obvious version on generated data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.errors import DataError, FedVLRError
from fedvlr_plugin.evaluation.ranks import Ranks, candidates, rank_positives


def make(histories: list[list[int]], valid: list[int], test: list[int], n_items: int) -> Interactions:
    """Interactions from plain lists; -1 = no held-out item."""
    indptr = np.cumsum([0, *(len(h) for h in histories)]).astype(np.int64)
    items = np.array([i for h in histories for i in sorted(h)], dtype=np.int64)
    names = tuple(f"u{u}" for u in range(len(histories))), tuple(f"i{i}" for i in range(n_items))
    return Interactions(len(histories), n_items, indptr, items, np.array(valid), np.array(test), *names)


DATA = make([[0, 1], [2], []], valid=[2, -1, 0], test=[3, 0, 1], n_items=6)
SCORES = torch.tensor(
    [
        [9.0, 8.0, 7.0, 5.0, 5.0, 6.0],
        [1.0, 2.0, 3.0, 1.0, 0.0, 1.0],
        [4.0, 4.0, 4.0, 4.0, 4.0, 4.0],
    ]
)


def of(scores: torch.Tensor):
    return lambda users: scores[users].clone()


def columns(ranks: Ranks) -> list[list[int]]:
    return [c.tolist() for c in (ranks.users, ranks.items, ranks.above, ranks.tied)]


def test_golden_test_phase() -> None:
    # user 0: items 0, 1 (training) and 2 (validation) masked; 5 above, 4 tied. user 1: 2 masked; 1 above; 3, 5 tied.
    # user 2: 0 masked; all others tied.
    assert columns(rank_positives(of(SCORES), DATA, "test")) == [[0, 1, 2], [3, 0, 1], [1, 1, 0], [1, 2, 4]]


def test_golden_test_phase_with_validation_items_left_in() -> None:
    ranks = rank_positives(of(SCORES), DATA, "test", mask_validation=False)
    assert columns(ranks) == [[0, 1, 2], [3, 0, 1], [2, 1, 0], [1, 2, 5]]


def test_golden_validation_phase_skips_users_without_an_item() -> None:
    ranks = rank_positives(of(SCORES), DATA, "valid")
    assert columns(ranks) == [[0, 2], [2, 0], [0, 0], [0, 5]]


def test_cold_marks_positives_that_nobody_has_in_training() -> None:
    assert rank_positives(of(SCORES), DATA, "test").cold.tolist() == [True, False, False]


def test_a_positive_that_is_also_in_training_stays_a_candidate() -> None:
    data = make([[0, 1]], valid=[1], test=[1], n_items=4)
    ranks = rank_positives(of(torch.tensor([[9.0, 1.0, 2.0, 0.0]])), data, "test")
    assert columns(ranks) == [[0], [1], [1], [0]]
    assert candidates(data, "test").tolist() == [3]


def test_infinite_scores_rank_and_minus_infinity_does_not_tie_with_masked_items() -> None:
    inf = float("inf")
    data = make([[0, 1]], valid=[-1], test=[2], n_items=5)
    assert columns(rank_positives(of(torch.tensor([[0.0, 0.0, -inf, 1.0, -inf]])), data, "test"))[2:] == [[1], [1]]
    assert columns(rank_positives(of(torch.tensor([[0.0, 0.0, inf, 1.0, inf]])), data, "test"))[2:] == [[0], [1]]


def test_nan_scores_are_refused() -> None:
    bad = SCORES.clone()
    bad[2, 5] = float("nan")
    with pytest.raises(FedVLRError, match="NaN"):
        rank_positives(of(bad), DATA, "test", block_users=1)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 5), torch.zeros(2, 6), torch.zeros(3, 6, dtype=torch.int64)])
def test_wrong_scores_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(FedVLRError, match="scorer must return"):
        rank_positives(lambda users: wrong, DATA, "test")


def test_nothing_to_rank_is_an_error() -> None:
    with pytest.raises(DataError, match="no user has a valid item"):
        rank_positives(of(SCORES), make([[0], [1], [2]], [-1] * 3, [3] * 3, 6), "valid")


def test_the_scorer_sees_every_user_once_in_blocks() -> None:
    seen: list[list[int]] = []

    def score(users: torch.Tensor) -> torch.Tensor:
        seen.append(users.tolist())
        return SCORES[users].clone()

    rank_positives(score, DATA, "test", block_users=2)
    assert seen == [[0, 1], [2]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Interactions, torch.Tensor]:
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(3, 12))
    item = st.integers(0, n_items - 1)
    histories = [sorted(draw(st.sets(item, max_size=n_items))) for _ in range(n_users)]
    held = st.integers(-1, n_items - 1)
    valid, test = ([draw(held) for _ in range(n_users)] for _ in range(2))
    valid[0], test[0] = draw(item), draw(item)
    values = draw(st.lists(st.integers(0, 4), min_size=n_users * n_items, max_size=n_users * n_items))
    return make(histories, valid, test, n_items), torch.tensor(values, dtype=torch.float64).view(n_users, n_items)


def slow(data: Interactions, scores: torch.Tensor, phase: str, mask_validation: bool) -> list[list[int]]:
    rows = []
    for user in range(data.n_users):
        positive = int((data.valid if phase == "valid" else data.test)[user])
        if positive < 0:
            continue
        masked = set(data.history(user).tolist())
        if phase == "test" and mask_validation:
            masked.add(int(data.valid[user]))
        others = [i for i in range(data.n_items) if i not in masked and i != positive]
        mine = scores[user, positive]
        rows.append(
            [user, positive, sum(scores[user, i] > mine for i in others), sum(scores[user, i] == mine for i in others)]
        )
    return [[int(v) for v in column] for column in zip(*rows, strict=True)]


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["valid", "test"]), st.booleans(), st.integers(1, 7))
def test_equals_the_slow_version(problem, phase, mask_validation, block) -> None:
    data, scores = problem
    ranks = rank_positives(of(scores), data, phase, mask_validation=mask_validation, block_users=block)
    assert columns(ranks) == slow(data, scores, phase, mask_validation)
    constant = slow(data, torch.zeros_like(scores), phase, mask_validation)
    assert candidates(data, phase, mask_validation=mask_validation).tolist() == [t + 1 for t in constant[3]]
