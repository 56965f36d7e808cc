"""How sure a mean over users is, and whether one model is better than another on the same users.

Intervals: the percentile bootstrap of scipy (algorithm.md sections 6 and 10). The user is the unit that is resampled.
With several seeds a user's value is first averaged over seeds, so that the interval speaks of the users and the spread
over seeds is shown apart.

Comparisons: a paired randomisation test, corrected by Holm. Under the null hypothesis the two models are exchangeable for
each user, so the sign of every difference is a coin: scipy's permutation test flips them. Users without a difference do
not matter to it and are left out, which is exact and saves most of the work for hit rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fedvlr_plugin.errors import DataError

ALPHA = 0.05
FloatArray = npt.NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 4999
BATCH_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the values."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: FloatArray, rng: np.random.Generator, level: float = LEVEL, n: int = RESAMPLES) -> Interval:
    """Percentile bootstrap interval of the mean of `values` `[n_users]`; raises `DataError` if there are none."""
    if not len(values):
        raise DataError("an interval needs at least one user")
    if np.all(values == values[0]):  # nothing varies: the bootstrap would say the same, with a warning
        return Interval(float(values[0]), float(values[0]))
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=n,
        batch=max(1, BATCH_ELEMENTS // len(values)),
        confidence_level=level,
        method="percentile",
        vectorized=True,
        random_state=rng,
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Comparison:
    """Mean difference a - b over users, its bootstrap interval, and the two-sided p (uncorrected)."""

    difference: float
    interval: Interval
    p: float


def compare(a: FloatArray, b: FloatArray, rng: np.random.Generator, n: int = RESAMPLES) -> Comparison:
    """Compares two models on the same users.

    Args:
        a, b: `[n_users]`, each user's value under the two models, users in the same order.
        n: sign flips drawn; with few differences all of them are enumerated and p is exact.

    Raises:
        DataError: the two differ in length.

    >>> a, b = np.array([100.0] * 8 + [0.0] * 2), np.array([0.0] * 6 + [100.0] * 2 + [0.0] * 2)
    >>> found = compare(a, b, np.random.default_rng(0))
    >>> found.difference, round(found.p, 3)
    (60.0, 0.031)
    """
    if a.shape != b.shape:
        raise DataError(f"a paired comparison needs the same users on both sides, got {len(a)} and {len(b)}")
    difference = a - b
    return Comparison(float(difference.mean()), mean_interval(difference, rng, n=n), _p(difference, rng, n))


def _p(difference: FloatArray, rng: np.random.Generator, n: int) -> float:
    moved = difference[difference != 0.0]
    if not len(moved):
        return 1.0
    with np.errstate(over="ignore"):  # scipy counts all flips, 2 ** n_users
        found = stats.permutation_test(
            (moved,),
            lambda x, axis: x.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=n,
            batch=max(1, BATCH_ELEMENTS // len(moved)),
            random_state=rng,
        )
    return float(found.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values in the order given, to be held against alpha one by one."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    worst = 0.0
    for step, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - step) * float(p[index])))
        adjusted[index] = worst
    return [float(value) for value in adjusted]
