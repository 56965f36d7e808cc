"""The test over seeds and users: by hand, its size under the null, and what it says where seeds do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.seed_and_user_test import ONE_DEGREE, seed_and_user_mean, seed_and_user_test

USERS = 204


def test_by_hand() -> None:
    """Two seeds against a row without randomness, three users."""
    a, b = np.array([[1.0, 2.0, 6.0], [3.0, 8.0, 10.0]]), np.array([[0.0, 1.0, 2.0]])
    # Users' means 2, 5, 8, less b: 2, 4, 6, mean 4, variance 4, user part 4 / 3. Seeds' means 3 and 7, variance 8,
    # seed part 8 / 2 = 4. Residuals of a: (1, -1, 0) and (-1, 1, 0), sum of squares 4, mean square 4 / (1 * 2) = 2,
    # subtracted 2 / (2 * 3) = 1 / 3. Variance 4 / 3 + 4 - 1 / 3 = 5.
    found = seed_and_user_test(a, b, b_varies=False)
    assert found.difference == pytest.approx(4.0) and found.standard_error == pytest.approx(np.sqrt(5))
    degrees = 25 / (4**2 / ONE_DEGREE + (4 / 3) ** 2 / 2)
    assert found.degrees == pytest.approx(degrees)
    assert found.p == pytest.approx(2 * stats.t.sf(4 / np.sqrt(5), degrees))
    low, high = found.interval().low, found.interval().high
    assert (low + high) / 2 == pytest.approx(4.0) and low < 0 < high


def test_rows_without_randomness_give_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.2, 1, (1, 50)), rng.normal(0, 1, (1, 50))
    found = seed_and_user_test(a, b, a_varies=False, b_varies=False)
    expected = stats.ttest_rel(a[0], b[0])
    assert found.p == pytest.approx(expected.pvalue) and found.degrees == pytest.approx(49)
    interval, theirs = found.interval(), expected.confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))


def test_seeds_that_dominate_give_the_test_of_welch() -> None:
    """With a negligible share of the users the seeds' means are compared, and their number is what counts."""
    rng = np.random.default_rng(1)
    a, b = (np.repeat(rng.normal(size=(5, 1)), USERS, axis=1) + 1e-6 * rng.normal(size=(5, USERS)) for _ in range(2))
    expected = stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False)
    assert seed_and_user_test(a, b).p == pytest.approx(expected.pvalue, rel=1e-6)


def null(
    rng: np.random.Generator, n_seeds: int, seed_share: float, interaction: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two methods with the same mean; the seeds' part of Var(D) is `seed_share` times the users'."""
    user_part = (1 + 2 * interaction / n_seeds) / USERS
    seed_sd = np.sqrt(seed_share * user_part * n_seeds / 2)
    common = rng.normal(size=USERS)
    users = rng.normal(size=(2, USERS)) * np.sqrt(0.5)
    tables = [
        common + u + seed_sd * rng.normal(size=(n_seeds, 1)) + np.sqrt(interaction) * rng.normal(size=(n_seeds, USERS))
        for u in users
    ]
    return tables[0], tables[1]


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_share", [0.0, 0.3, 1.0, 3.0])
def test_it_rejects_5_percent_under_the_null(n_seeds: int, seed_share: float) -> None:
    rng = np.random.default_rng([n_seeds, int(10 * seed_share)])
    rejected = [seed_and_user_test(*null(rng, n_seeds, seed_share)).p < 0.05 for _ in range(5000)]
    assert 0.04 <= np.mean(rejected) <= 0.06


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_it_rejects_5_percent_of_hit_rates_under_the_null(n_seeds: int) -> None:
    """Values of 0 and 1, as skewed as KU's hit rates, with seeds that shift every user's chance."""
    rng = np.random.default_rng(n_seeds)

    def table(users: np.ndarray) -> np.ndarray:
        own = users + 0.8 * rng.normal(size=USERS)
        chance = 1 / (1 + np.exp(-(own + 0.15 * rng.normal(size=(n_seeds, 1)))))
        return 100.0 * (rng.random((n_seeds, USERS)) < chance)

    def p() -> float:
        users = -0.6 + 1.5 * rng.normal(size=USERS)
        return seed_and_user_test(table(users), table(users)).p

    assert 0.04 <= np.mean([p() < 0.05 for _ in range(5000)]) <= 0.06


def test_users_alone_reject_far_too_often_where_seeds_matter() -> None:
    """The fault that this test mends: a t-test (or sign flips) of the seeds' averages over users."""
    rng = np.random.default_rng(7)
    pairs = [null(rng, 2, 1.0) for _ in range(1000)]
    users_alone = [stats.ttest_rel(a.mean(axis=0), b.mean(axis=0)).pvalue < 0.05 for a, b in pairs]
    assert np.mean(users_alone) > 0.12


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(8)
    hits = [0.0 in seed_and_user_mean(null(rng, 5, 0.5)[0]).interval() for _ in range(2000)]
    assert 0.935 <= np.mean(hits) <= 0.965


def test_the_sides_are_symmetric_and_a_real_difference_is_found() -> None:
    a, b = null(np.random.default_rng(2), 5, 0.3)
    one, two = seed_and_user_test(a, b), seed_and_user_test(b, a)
    assert one.difference == -two.difference and one.p == two.p
    assert seed_and_user_test(a + 2.0, b).p < 1e-6
    assert seed_and_user_test(a, a).p == 1.0


def test_where_nothing_varies_p_is_that_of_all_sign_flips() -> None:
    same = np.full((5, 30), 3.0)
    assert seed_and_user_test(same, same - 1.0).p == 2.0**-29
    assert seed_and_user_test(same, same).p == 1.0


def test_too_little_is_refused() -> None:
    one, five = np.zeros((1, 9)), np.zeros((5, 9))
    with pytest.raises(DataError, match="at least two seeds"):
        seed_and_user_test(five, one)
    with pytest.raises(DataError, match="same two or more users"):
        seed_and_user_test(five, np.zeros((5, 8)))
    with pytest.raises(DataError, match="two or more users"):
        seed_and_user_mean(np.zeros((5, 1)))
