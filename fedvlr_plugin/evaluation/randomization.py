"""Paired randomization tests over users: exact where possible, else Monte Carlo with as many flips as a verdict needs.

Under the null hypothesis two models are exchangeable for each user, so the sign of every user's difference is a fair
coin. The statistic is `|sum of the differences|`, and the test is two-sided. It is about these trained models; for the
variation over seeds see `seed_and_user_test`. Users without a difference do not change p and are left out.

Exact distributions:

* differences on a lattice (hit rates averaged over seeds take few values): dynamic programming over the sum;
* few differences: all sign patterns, by sorting the sums of two halves.

Otherwise `p = (1 + exceedances) / (1 + flips)`, by the following sequential rule for a family that Holm corrects:

1. Draw `MIN_FLIPS` sign patterns for every comparison and bound its p by the Clopper-Pearson interval of risk `RISK`.
2. A comparison is settled when Holm's decision about it is the same with all p at their lower and with all at their
   upper bounds. Stop when all are settled.
3. Else estimate p anew for every comparison whose interval meets an unsettled one, by importance sampling: a
   difference `d` keeps the sign of the sum with probability `1 / (1 + exp(-2 theta |d|))`, `theta` such that the sum
   is the observed one on average, and a pattern of sum `S` counts `prod cosh(theta d) exp(-theta S)`. The estimate is
   unbiased, and as precise as a hundred times as many plain flips where p is small. Begin with `FIRST_TILTED`, double,
   bound p by the normal interval of risk `RISK`, and go on with 2, up to `MAX_FLIPS` a comparison; p is then known to
   about half a percent of itself.

So most flips are used where the adjusted p is near alpha, and a repetition with other random numbers gives another
decision with a probability of about `RISK`. The smallest p that can be reached is `1 / (1 + MIN_FLIPS)`, far below any Holm threshold
of a table. Sources: Mehta, Patel and Senchaudhuri, JASA 1988 (importance sampling for permutation tests); Gandy, JASA
2009 (sequential Monte Carlo tests with bounded resampling risk).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.significance import ALPHA, FloatArray, holm

MIN_FLIPS = 131_072
FIRST_TILTED = 16_384
MAX_FLIPS = 8 * MIN_FLIPS
RISK = 1e-4
LATTICE_SIZE = 100_000  # largest sum of absolute differences, in lattice steps, for the exact distribution
ENUMERATED = 34  # so many differences are enumerated: 2 ** 17 sums in each half
FLIPS_AT_ONCE = 131_072
USERS_AT_ONCE = 12
Float32Array = npt.NDArray[np.float32]
_Float = TypeVar("_Float", np.float32, np.float64)


@dataclass(frozen=True)
class Randomization:
    """The result of one randomization test.

    Attributes:
        p: two-sided, not corrected.
        flips: number of random sign patterns drawn; 0 where it is exact.
    """

    p: float
    flips: int

    @property
    def exact(self) -> bool:
        """Whether all sign patterns were counted."""
        return self.flips == 0


def sign_flip_tests(
    differences: Sequence[FloatArray], rng: np.random.Generator, alpha: float = ALPHA
) -> list[Randomization]:
    """Test a family of paired comparisons that Holm corrects; see the module for the sequential rule.

    Args:
        differences: for each comparison `[n_users]`, a user's value under one model less that under the other.
        rng: source of the sign patterns. Comparisons of equally many users share them.
        alpha: level of the family.

    Returns:
        One result per comparison, in the order given, before the correction.

    Raises:
        DataError: a difference is not finite, or a comparison has no users.

    >>> better_on_six_of_eight = np.array([100.0] * 6 + [0.0] * 2)
    >>> sign_flip_tests([better_on_six_of_eight], np.random.default_rng(0))[0].p  # exact: 2 of 2 ** 6 patterns
    0.03125
    """
    for difference in differences:
        if not len(difference) or not np.all(np.isfinite(difference)):
            raise DataError(
                f"a randomization test needs finite differences of at least one user, got {len(difference)} users; "
                "leave users without a value out on both sides"
            )
    exact = [None if (p := exact_p(difference)) is None else _Estimate(p, p, p, 0) for difference in differences]
    open_indices = [i for i, estimate in enumerate(exact) if estimate is None]
    plain = iter(_plain([differences[i] for i in open_indices], rng))
    estimates = [next(plain) if estimate is None else estimate for estimate in exact]
    tilted: dict[int, _Tilted] = {}
    while again := _unsettled(estimates, alpha):
        for i in again:
            sampler = tilted.setdefault(i, _Tilted(differences[i]))
            sampler.draw(max(FIRST_TILTED, sampler.n), rng)
            estimates[i] = sampler.estimate()
    return [Randomization(estimate.p, estimate.flips) for estimate in estimates]


@dataclass(frozen=True)
class _Estimate:
    """An estimate of p, bounds that hold with probability 1 - `RISK`, and the number of flips; exact with no flips."""

    p: float
    low: float
    high: float
    flips: int


def exact_p(difference: FloatArray) -> float | None:
    """Compute p over all sign patterns of differences `[n_users]`; None if no exact method is affordable."""
    moved = np.abs(difference[difference != 0.0])
    if not len(moved):
        return 1.0
    observed = abs(float(difference.sum()))
    if len(moved) <= ENUMERATED:
        return _enumerated(moved, observed)
    steps = lattice_steps(moved)
    if steps is None or int(steps.sum()) > LATTICE_SIZE:
        return None
    unit = float(moved.sum()) / int(steps.sum())
    return _on_lattice(steps, round(observed / unit))


def lattice_steps(values: FloatArray) -> npt.NDArray[np.int64] | None:
    """Express positive values as whole multiples of a common unit.

    Args:
        values: `[n]`, all above 0.

    Returns:
        `[n]` whole numbers, or None if no unit larger than 1/10000 of the largest value divides all of them.
    """
    largest = float(values.max())
    tolerance = 1e-7 * largest
    unit = 0.0
    for value in np.unique(np.round(values / tolerance)) * tolerance:
        a, b = float(value), unit
        while b > tolerance * 10:  # Euclid's algorithm; remainders next to 0 or b are rounding errors
            remainder = a % b
            a, b = b, 0.0 if min(remainder, b - remainder) < tolerance * 10 else remainder
        unit = a
        if unit < 1e-4 * largest:
            return None
    steps = np.round(values / unit)
    unit = float(values.sum() / steps.sum())
    steps = np.round(values / unit).astype(np.int64)
    return steps if bool(np.all(np.abs(values - steps * unit) <= 1e-6 * largest)) else None


def _on_lattice(steps: npt.NDArray[np.int64], observed: int) -> float:
    """`P(|sum of +-steps| >= observed)`; the sum is `total - 2 * (sum of the negative ones)`."""
    total = int(steps.sum())
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    reached = 0
    for step in np.sort(steps):
        probability[: reached + 1] *= 0.5
        shifted = probability[: reached + 1].copy()
        reached += int(step)
        probability[int(step) : reached + 1] += shifted
    if observed == 0:
        return 1.0
    return min(1.0, 2.0 * float(probability[: (total - observed) // 2 + 1].sum()))


def _enumerated(moved: FloatArray, observed: float) -> float:
    """The share of sign patterns whose sum is at least as far from 0 as the observed one."""
    half = len(moved) // 2
    one, two = _sums(moved[:half]), np.sort(_sums(moved[half:]))
    bound = observed - 1e-9 * float(moved.sum())  # rounding must not lose the observed pattern itself
    if bound <= 0:
        return 1.0
    above = len(two) - np.searchsorted(two, bound - one, side="left")  # the distribution is symmetric
    return min(1.0, 2.0 * float(above.sum()) / (len(one) * len(two)))


def _sums(values: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Return the sums of `values` `[n, ...]` under all `2 ** n` sign patterns, `[2 ** n, ...]`."""
    sums = np.zeros((1, *values.shape[1:]), dtype=values.dtype)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _plain(differences: Sequence[FloatArray], rng: np.random.Generator) -> list[_Estimate]:
    """Estimate each p from `MIN_FLIPS` sign patterns, which comparisons of equally many users share."""
    estimates: dict[int, _Estimate] = {}
    for n_users in sorted({len(difference) for difference in differences}):
        group = [i for i, difference in enumerate(differences) if len(difference) == n_users]
        columns = np.stack([differences[i] for i in group], axis=1)
        columns = columns[np.any(columns != 0.0, axis=1)]
        columns /= np.abs(columns).sum(axis=0)
        sums = _random_sums(columns, MIN_FLIPS, rng)
        exceedances = (np.abs(sums) >= np.abs(columns.sum(axis=0)) - 1e-6).sum(axis=0)  # float32 must not lose ties
        for i, count in zip(group, exceedances.tolist(), strict=True):
            low = float(stats.beta.ppf(RISK / 2, count, MIN_FLIPS - count + 1)) if count else 0.0
            high = float(stats.beta.ppf(1 - RISK / 2, count + 1, MIN_FLIPS - count)) if count < MIN_FLIPS else 1.0
            estimates[i] = _Estimate((1 + count) / (1 + MIN_FLIPS), low, high, MIN_FLIPS)
    return [estimates[i] for i in range(len(differences))]


def _random_sums(columns: FloatArray, n: int, rng: np.random.Generator) -> Float32Array:
    """Return `[n, k]` sums of the columns of `[n_users, k]` under `n` random sign patterns.

    The sums over all sign patterns of `USERS_AT_ONCE` users are tabulated, and a random entry of each table is added.
    """
    sums = np.zeros((n, columns.shape[1]), dtype=np.float32)
    for start in range(0, len(columns), USERS_AT_ONCE):
        table = _sums(columns[start : start + USERS_AT_ONCE].astype(np.float32))
        drawn = rng.integers(0, len(table), n, dtype=np.uint16)
        sums += table.take(drawn, axis=0)
    return sums


class _Tilted:
    """Importance sampling of one p; see step 3 of the rule."""

    def __init__(self, difference: FloatArray) -> None:
        """Find the tilt under which the observed sum is the expected one."""
        moved = np.abs(difference[difference != 0.0])
        self.moved = moved / moved.sum()
        self.observed = abs(float(difference.sum())) / float(moved.sum())
        high = 1.0
        while self._expected(high) < self.observed and high < 1e9:
            high *= 2
        self.theta = float(optimize.brentq(lambda theta: self._expected(theta) - self.observed, 0.0, high))
        self.n, self.total, self.squares = 0, 0.0, 0.0

    def _expected(self, theta: float) -> float:
        return float(self.moved @ np.tanh(theta * self.moved))

    def draw(self, n: int, rng: np.random.Generator) -> None:
        """Add `n` sign patterns."""
        for start in range(0, n, FLIPS_AT_ONCE):
            size = min(FLIPS_AT_ONCE, n - start)
            sums, log_weight = np.zeros(size), 0.0
            for first in range(0, len(self.moved), USERS_AT_ONCE):
                values = self.moved[first : first + USERS_AT_ONCE]
                table = _sums(values)
                log_cosh = float(np.logaddexp(self.theta * values, -self.theta * values).sum()) - len(values) * np.log(
                    2.0
                )
                share = np.cumsum(np.exp(self.theta * table - log_cosh) / len(table))
                sums += table[np.minimum(np.searchsorted(share, rng.random(size), side="right"), len(table) - 1)]
                log_weight += log_cosh
            weights = 2.0 * np.exp(log_weight - self.theta * sums) * (sums >= self.observed - 1e-9)
            self.n += size
            self.total += float(weights.sum())
            self.squares += float((weights**2).sum())

    def estimate(self) -> _Estimate:
        """Return p with its normal interval."""
        p = self.total / self.n
        error = float(np.sqrt(max(0.0, self.squares / self.n - p**2) / self.n))
        half = float(stats.norm.isf(RISK / 2)) * error
        return _Estimate(min(1.0, p), max(0.0, p - half), min(1.0, p + half), MIN_FLIPS + self.n)


def _unsettled(estimates: Sequence[_Estimate], alpha: float) -> list[int]:
    """Return the comparisons that need more flips before Holm's decisions are sure."""
    low, high = np.array([e.low for e in estimates]), np.array([e.high for e in estimates])
    unsettled = (np.array(holm(low.tolist())) < alpha) != (np.array(holm(high.tolist())) < alpha)
    if not unsettled.any():
        return []
    near = (low <= high[unsettled].max()) & (high >= low[unsettled].min())
    return [int(i) for i in np.flatnonzero(near) if 0 < estimates[i].flips < MAX_FLIPS]
