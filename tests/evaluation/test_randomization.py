"""Randomization tests: p by hand and by enumeration, exact against Monte Carlo, and the sequential rule."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation import randomization
from fedvlr_plugin.evaluation.randomization import MIN_FLIPS, exact_p, lattice_steps, sign_flip_tests
from fedvlr_plugin.evaluation.significance import ALPHA, holm


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def enumerated(difference: np.ndarray) -> float:
    """The slow and obvious p."""
    sums = [np.dot(signs, difference) for signs in product((-1, 1), repeat=len(difference))]
    return float(np.mean(np.abs(sums) >= abs(difference.sum()) - 1e-9))


def test_p_by_hand() -> None:
    # All of (1, 2, 3) point one way: 2 of 8 patterns are as extreme. With (3, 2, -1) the sum is 4, also reached by
    # (3, 2, 1) and their mirror images: 4 of 8.
    assert exact_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert exact_p(np.array([3.0, 2.0, -1.0])) == pytest.approx(4 / 8)
    assert exact_p(np.array([3.0, 0.0, 2.0, 0.0, -1.0])) == pytest.approx(4 / 8), "who does not differ does not count"
    assert exact_p(np.zeros(5)) == 1.0
    assert exact_p(np.full(30, 20.0)) == pytest.approx(2.0**-29)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=11), st.sampled_from([1.0, 20.0, 100 / 15]))
def test_both_exact_ways_equal_the_enumeration(steps: list[int], unit: float) -> None:
    difference = np.array(steps) * unit
    expected = enumerated(difference)
    assert exact_p(difference) == pytest.approx(expected, rel=1e-9)
    moved = np.abs(difference[difference != 0])
    if len(moved):
        whole = lattice_steps(moved)
        assert whole is not None
        scale = float(moved.sum()) / int(whole.sum())
        found = randomization._on_lattice(whole, round(abs(float(difference.sum())) / scale))
        assert found == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-4, 4).map(lambda value: round(value, 4)), min_size=1, max_size=9))
def test_few_users_are_enumerated_whatever_their_values(values: list[float]) -> None:
    assert exact_p(np.array(values)) == pytest.approx(enumerated(np.array(values)))


def test_hit_rates_of_many_users_are_exact_and_agree_with_flips(monkeypatch) -> None:
    seeds = (rng(1).random((5, 943)) < 0.37).mean(axis=0) - (rng(2).random((3, 943)) < 0.35).mean(axis=0)
    difference = 100 * seeds
    (exact,) = sign_flip_tests([difference], rng())
    assert exact.exact and 0.001 < exact.p < 1
    assert sign_flip_tests([difference], rng(8))[0] == exact, "no generator is asked"
    monkeypatch.setattr(randomization, "exact_p", lambda difference: None)
    (drawn,) = sign_flip_tests([difference], rng())
    assert drawn.flips >= MIN_FLIPS and drawn.p == pytest.approx(exact.p, abs=5 * np.sqrt(exact.p / MIN_FLIPS))


def test_a_lattice_is_found_through_rounding_errors_and_nothing_else_is_one() -> None:
    assert list(lattice_steps(np.array([100 / 15, 20.0, 100 / 3, 40 / 3]))) == [1, 3, 5, 2]
    assert list(lattice_steps(np.array([0.1 + 0.2, 0.6]))) == [1, 2]
    assert list(lattice_steps(np.array([1.0, 1.5]))) == [2, 3]
    assert lattice_steps(rng().random(40)) is None


def test_the_smallest_p_is_far_below_the_threshold_of_a_large_family() -> None:
    clear = rng(1).random(300) + 0.5
    (found,) = sign_flip_tests([clear], rng())
    assert not found.exact and found.p == pytest.approx(1 / (1 + MIN_FLIPS))
    assert found.p < ALPHA / 32 / 100


def test_flips_go_where_a_decision_is_near() -> None:
    """Two comparisons of a family of 20 are near Holm's threshold, and only they are flipped on."""
    noise = rng(3).normal(size=(20, 400))
    noise -= noise.mean(axis=1, keepdims=True)
    shift = np.zeros(20)
    shift[:2] = 2.98, 3.1  # standard errors: two-sided p of about .05 / 20
    differences = [row + s * row.std() / 20 for row, s in zip(noise, shift, strict=True)]
    found = sign_flip_tests(differences, rng())
    far = sign_flip_tests(differences[2:], rng())
    assert [f.flips for f in found[2:]] == [MIN_FLIPS] * 18 == [f.flips for f in far]
    assert min(f.flips for f in found[:2]) > MIN_FLIPS


def test_importance_sampling_is_unbiased_and_far_more_precise_than_flips() -> None:
    difference = 20.0 * rng(6).integers(-3, 4, 90)
    difference[:18] = 60.0
    expected = exact_p(difference)
    assert expected is not None and 1e-5 < expected < 0.01
    estimates = []
    for seed in range(5):
        sampler = randomization._Tilted(difference)
        sampler.draw(MIN_FLIPS, rng(seed))
        estimates.append(sampler.estimate())
        assert estimates[-1].low < expected < estimates[-1].high
        flips_error = np.sqrt(expected / MIN_FLIPS)
        assert (estimates[-1].high - estimates[-1].low) / (2 * 3.9) < flips_error / 4
    assert np.mean([e.p for e in estimates]) == pytest.approx(expected, rel=0.01)
    assert len({e.p for e in estimates}) == 5


def test_decisions_near_the_threshold_do_not_depend_on_the_generator() -> None:
    """The stored fault: 4,999 flips in a family of 32 called a p of .0003 undecided or not by chance."""
    noise = rng(4).normal(size=(32, 204))
    noise -= noise.mean(axis=1, keepdims=True)
    differences = [
        row + s * row.std() / np.sqrt(204) for row, s in zip(noise, [3.5, 3.3, 3.05, *[0.0] * 29], strict=True)
    ]
    decisions = {
        tuple(np.array(holm([t.p for t in sign_flip_tests(differences, rng(seed))])) < ALPHA) for seed in range(6)
    }
    assert len(decisions) == 1
    old = {
        tuple(np.array(holm([_old_p(d, rng(seed)) for d in differences])) < ALPHA) for seed in range(6)
    }  # what the tables did before
    assert len(old) > 1


def _old_p(difference: np.ndarray, source: np.random.Generator, n: int = 4999) -> float:
    sums = np.where(source.random((n, len(difference))) < 0.5, -1.0, 1.0) @ difference
    return min(1.0, 2 * (1 + float((sums >= difference.sum()).sum())) / (n + 1))


def test_the_same_generator_gives_the_same_answer_and_the_order_is_kept() -> None:
    differences = [rng(1).normal(size=60), rng(2).normal(0.4, 1.0, 60), np.zeros(60), rng(3).normal(size=90)]
    one, two = (sign_flip_tests(differences, rng(5)) for _ in range(2))
    assert one == two and one[2].p == 1.0 and one[1].p == min(t.p for t in one)
    assert sign_flip_tests([], rng()) == []


def test_the_test_rejects_as_often_as_it_says() -> None:
    source = rng(9)
    p = [sign_flip_tests([source.normal(size=40)], source)[0].p for _ in range(300)]
    assert 4 <= np.sum(np.array(p) < 0.05) <= 27  # 15 expected, standard deviation 3.8


@pytest.mark.parametrize("difference", [np.array([]), np.array([1.0, np.nan])])
def test_values_that_are_none_are_refused(difference: np.ndarray) -> None:
    with pytest.raises(DataError, match="finite differences"):
        sign_flip_tests([difference], rng())
