"""Accounting: known values, bounds that hold, and the three questions that answer each other."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedvlr_plugin.errors import ConfigError, MissingExtraError
from fedvlr_plugin.privacy.accounting import Accountant, epsilon_of, noise_for, rounds_for
from fedvlr_plugin.privacy.guarantee import default_delta

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


@pytest.mark.parametrize(("q", "z", "rdp", "pld"), [(1.0, 1.0, 86.9, 82.0), (0.1, 4.0, 0.79, 0.68)])
def test_known_values(q: float, z: float, rdp: float, pld: float) -> None:
    accountant = Accountant(z, q, 5e-4, 100)
    digits = 1 if pld > 1 else 2
    assert round(accountant.epsilon_rdp(100), digits) == rdp
    assert round(accountant.epsilon(100), digits) == pld
    assert epsilon_of(z, 100, 5e-4, q) == accountant.epsilon(100)


def delta_of_gaussian(z: float, epsilon: float) -> float:
    """The exact delta of one Gaussian (Balle & Wang, 2018, theorem 8), by scipy."""
    one = norm.cdf(0.5 / z - epsilon * z)
    return float(one - math.exp(epsilon + norm.logcdf(-0.5 / z - epsilon * z)))


@given(st.floats(0.5, 30), st.integers(1, 300), st.sampled_from([1e-2, 5e-4, 1e-6]))
@settings(max_examples=15, deadline=None)
def test_without_sampling_pld_is_the_exact_gaussian(z: float, rounds: int, delta: float) -> None:
    found = epsilon_of(z, rounds, delta)
    exact_delta = delta_of_gaussian(z / math.sqrt(rounds), found)
    assert exact_delta <= delta * (1 + 1e-6), "epsilon is an upper bound"
    assert delta_of_gaussian(z / math.sqrt(rounds), found * 0.995 - 1e-4) > delta, "and a tight one"


@given(st.floats(0.5, 12), st.integers(1, 200), st.sampled_from([1.0, 0.5, 0.1, 0.02]))
@settings(max_examples=12, deadline=None)
def test_rdp_confirms_pld(z: float, rounds: int, q: float) -> None:
    accountant = Accountant(z, q, 5e-4, rounds)
    assert accountant.epsilon(rounds) <= accountant.epsilon_rdp(rounds) * 1.001 + 1e-4
    if q < 1:
        assert accountant.epsilon(rounds) < epsilon_of(z, rounds, 5e-4), "sampling amplifies"
    assert accountant.epsilon(rounds) < accountant.epsilon(rounds + 1), "every round costs something"


@given(st.floats(0.3, 20), st.integers(1, 120), st.sampled_from([1.0, 0.3, 0.1]), st.sampled_from([5e-4, 1e-5]))
@settings(max_examples=8, deadline=None)
def test_calibrated_noise_never_exceeds_epsilon(epsilon: float, rounds: int, q: float, delta: float) -> None:
    z = noise_for(epsilon, rounds, delta, q)
    assert epsilon_of(z, rounds, delta, q) <= epsilon
    assert epsilon_of(z * 0.995, rounds, delta, q) > epsilon, "no more noise than needed"


@pytest.mark.parametrize("q", [1.0, 0.2])
def test_any_two_give_the_third(q: float) -> None:
    z = noise_for(4.0, 30, 5e-4, q)
    assert 30 <= rounds_for(4.0, z, 5e-4, q) <= 31
    assert epsilon_of(z, rounds_for(4.0, z, 5e-4, q), 5e-4, q) <= 4.0


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: epsilon_of(1e300, 10, 1e-3), "noise_multiplier must be at most 1e\\+06, got 1e\\+300"),
        (lambda: noise_for(-1.0, 10, 1e-3), "epsilon must be above 0"),
        (lambda: noise_for(1.0, 0, 1e-3), "rounds must be at least 1"),
        (lambda: epsilon_of(1.0, 10, 1.0), "delta must be in"),
        (lambda: epsilon_of(1.0, 10, 1e-3, 1.5), "sampling must be in"),
        (lambda: epsilon_of(-1.0, 10, 1e-3), "noise_multiplier must be at least 0"),
        (lambda: rounds_for(0.1, 1.0, 1e-3), "one round with noise multiplier 1 already costs"),
        (lambda: default_delta(0), "at least 1"),
    ],
)
def test_nonsense_is_refused(call, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        call()


def test_extremes_end_in_a_bound_and_not_in_a_crash() -> None:
    assert epsilon_of(0.0, 5, 1e-3) == math.inf
    assert 1e6 < epsilon_of(1e-3, 100, 1e-3) < math.inf
    assert 0 <= epsilon_of(1e5, 1, 1e-3) < 1e-3
    assert Accountant(1.0, 0.5, 1e-3, 10).epsilon(0) == 0.0


def test_without_the_package_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtraError, match=r"fedvlr-plugin\[dp\]"):
        Accountant(1.234, 1.0, 1e-3, 7)


def test_an_epsilon_near_nothing_is_met_by_much_noise() -> None:
    z = noise_for(1e-7, 60, 5e-3)
    assert 50 < z < 2000 and epsilon_of(z, 60, 5e-3) <= 1e-7, "delta alone allows for it"
    with pytest.raises(ConfigError, match="needs a noise multiplier above"):
        noise_for(1e-7, 60, 1e-12)
