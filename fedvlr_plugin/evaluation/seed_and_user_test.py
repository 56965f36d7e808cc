"""Test whether one method is better than another, with two sources of randomness: seeds and users.

A test over users alone is about the trained models. Another seed would give other models, and a claim about a method
must include that variation. The model is a two-way random-effects model for each method, with the users crossed between
the two methods and the seeds within each method:

    value[s, u] = mean + seed[s] + user[u] + interaction[s, u]

`D` is the difference of the two overall means. With `S` seeds a method and `U` users,

    Var(D) = sum over methods of (var_seed / S) + (var_user_difference + sum of var_interaction / S) / U

and the unbiased estimate is `V = sum (M_seed / S) + M_user / U - sum (M_interaction / (S U))`, where `M_seed` is the
variance of the seeds' means, `M_user` the variance over users of the difference averaged over seeds, `M_interaction`
the residual mean square of a method's `[S, U]` table. `D / sqrt(V)` is compared with Student's t with Satterthwaite's
degrees of freedom `V^2 / (sum ((M_seed / S)^2 / (S - 1)) + (M_user / U)^2 / (U - 1))`, at least 1. The subtraction can
make `V` too small by chance, so `V` is kept at or above `USER_SHARE` of the user part. A single degree of freedom (two seeds)
counts as `ONE_DEGREE`: Satterthwaite's formula is liberal there.

Why this model and not a hierarchical bootstrap: resampling S seeds underestimates their variance by (S - 1) / S and
has no tails for so few of them, so that with 2 to 5 seeds it rejects far too often. Why seeds are not paired between
methods: equal seed numbers share data and splits, not a common effect (measured on stored runs of five seeds:
correlation .06 +- .07 of the seeds' means), and pairing would halve the degrees of freedom.

Size at level 5 % under the null, by simulation with 204 users (20,000 repetitions, standard error .15 points), seed parts
of 0 to 10 times the user part, interaction variances of .5 to 4 times the users': with equal variances in both methods
4.6 to 5.3 % for 5 seeds, 4.2 to 5.2 % for 3, 3.7 to 5.8 % for 2. Where only one of the two methods varies with its seed:
up to 6.1 % for 5 seeds, 7.5 % for 3, 12.5 % for 2. This is one reason why a verdict asks for `MIN_SEEDS`.

Sources: Satterthwaite, Biometrics Bulletin 1946; Forster and Dickinson, "More on the language-as-fixed-effect
fallacy", 1976 (quasi-F ratios with two random factors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.significance import LEVEL, FloatArray, Interval

MIN_SEEDS = 5
"""Least number of seeds of a trained method for a verdict."""
ONE_DEGREE = 0.87
"""Degrees of freedom of the variance of two seeds, where Satterthwaite's formula has 1. With 1 the simulated size for two
seeds in both methods goes up to 6.3 %, with .87 up to 5.8 % (smallest 3.7 %). More seeds do not use it."""
USER_SHARE = 0.3
"""Least variance, as a share of the user part: keeps the subtraction from leaving nothing. Simulated sizes with shares
from 0 to .3 differ by at most .3 points (4.4 and 4.6 % for two seeds without a seed effect and an interaction of 4), so
the share decides next to nothing on average. A share of 1 would be safe but deaf: there 1.7 % for two seeds, 3.1 % for
five."""


@dataclass(frozen=True)
class Estimate:
    """A difference of two methods, or one method's mean, over seeds and users.

    Attributes:
        difference: in the unit of the values.
        standard_error: its estimate, both sources of randomness included.
        degrees: Satterthwaite's degrees of freedom.
        p: two-sided, for a difference of 0, not corrected.
    """

    difference: float
    standard_error: float
    degrees: float
    p: float

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the two-sided confidence interval of the difference."""
        half = float(stats.t.ppf((1 + level) / 2, self.degrees)) * self.standard_error
        return Interval(self.difference - half, self.difference + half)


def seed_and_user_test(a: FloatArray, b: FloatArray, *, a_varies: bool = True, b_varies: bool = True) -> Estimate:
    """Compare two methods on the same users.

    Args:
        a, b: `[n_seeds, n_users]`, the value of every user under every seed; the numbers of seeds may differ.
        a_varies, b_varies: False for a method without randomness (a floor), for which one run suffices.

    Returns:
        The difference `a - b` with its standard error, degrees of freedom and p.

    Raises:
        DataError: the users differ in number or are fewer than two, or a method that varies has fewer than two seeds.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise DataError(
            f"a seed-and-user test needs [n_seeds, n_users] of the same two or more users, got {a.shape} and {b.shape}"
        )
    return _estimate(a.mean(axis=0) - b.mean(axis=0), [x for x, varies in ((a, a_varies), (b, b_varies)) if varies])


def seed_and_user_mean(values: FloatArray, *, varies: bool = True) -> Estimate:
    """Estimate one method's mean over seeds and users, for its interval.

    Args:
        values: `[n_seeds, n_users]`.
        varies: False for a method without randomness.

    Raises:
        DataError: there are fewer than two users, or fewer than two seeds of a method that varies.
    """
    if values.ndim != 2 or values.shape[1] < 2:
        raise DataError(
            f"a mean over seeds and users needs [n_seeds, n_users] of two or more users, got {values.shape}"
        )
    return _estimate(values.mean(axis=0), [values] if varies else [])


def _estimate(per_user: FloatArray, varying: list[FloatArray]) -> Estimate:
    n_users = len(per_user)
    user_part = float(per_user.var(ddof=1)) / n_users
    variance, squares = user_part, user_part**2 / (n_users - 1)
    for values in varying:
        n_seeds = len(values)
        if n_seeds < 2:
            raise DataError(
                f"a method that varies with its seed needs at least two seeds for this test, got {n_seeds}; run more"
            )
        seed_means = values.mean(axis=1)
        rest = values - seed_means[:, None] - values.mean(axis=0) + values.mean()
        interaction = float((rest**2).sum()) / ((n_seeds - 1) * (n_users - 1))
        seed_part = float(seed_means.var(ddof=1)) / n_seeds
        variance += seed_part - interaction / (n_seeds * n_users)
        squares += seed_part**2 / (ONE_DEGREE if n_seeds == 2 else n_seeds - 1)
    variance = max(variance, USER_SHARE * user_part)
    difference = float(per_user.mean())
    degrees = max(1.0, variance**2 / squares) if squares > 0 else float(n_users - 1)
    error = float(np.sqrt(variance))
    smallest = 2.0 ** (1 - n_users)  # of all sign flips of the users; matters only where nothing varies
    if error <= 1e-12 * abs(difference):
        return Estimate(difference, error, degrees, 1.0 if difference == 0.0 else smallest)
    p = float(2 * stats.t.sf(abs(difference) / error, degrees)) if error > 0 else 1.0
    return Estimate(difference, error, degrees, max(p, smallest))
