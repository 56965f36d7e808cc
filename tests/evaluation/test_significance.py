"""Intervals over users and Holm's correction: by hand, and by what they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.significance import holm, mean_interval


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_interval_is_that_of_the_normal_theory_for_many_users() -> None:
    values = rng(1).normal(10.0, 2.0, 2000)
    found = mean_interval(values, rng())
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert values.mean() in found and values.mean() + 1.0 not in found


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    source = rng(5)
    hits = sum(0.3 in mean_interval((source.random(150) < 0.3).astype(float), source, n=400) for _ in range(300))
    assert 270 <= hits <= 297  # 95 % of 300 is 285, standard deviation 3.8


def test_the_interval_of_a_constant_is_a_point_and_of_nothing_an_error() -> None:
    found = mean_interval(np.full(7, 0.25), rng())
    assert (found.low, found.high) == (0.25, 0.25)
    with pytest.raises(DataError, match="at least one user"):
        mean_interval(np.array([]), rng())


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p)) + 1e-12
    for i, j in product(range(len(p)), repeat=2):
        assert not (p[i] < p[j]) or adjusted[i] <= adjusted[j]
