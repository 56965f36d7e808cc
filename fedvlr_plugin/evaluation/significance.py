"""Compute bootstrap intervals of means over users, and Holm's correction of a family of p values.

Intervals: the percentile bootstrap of scipy (algorithm.md sections 6 and 10). The user is the unit that is resampled.
With several seeds, a user's value is first averaged over seeds, so that the interval covers the variation over users
only; the spread over seeds is reported separately.

Comparisons of two rows are in `randomization` (over users) and `seed_and_user_test` (over seeds and users).
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
    """Compute the percentile bootstrap interval of a mean over users.

    Args:
        values: `[n_users]`, finite.
        rng: source of the bootstrap samples.
        level: confidence level, in (0, 1).
        n: number of bootstrap samples.

    Raises:
        DataError: there are no values.
    """
    if not len(values):
        raise DataError("an interval needs at least one user")
    if np.all(values == values[0]):  # equal values: the bootstrap would give the same, with a warning
        return Interval(float(values[0]), float(values[0]))
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=n,
        batch=max(1, BATCH_ELEMENTS // len(values)),
        confidence_level=level,
        method="percentile",
        vectorized=True,
        random_state=rng,
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method.

    Args:
        p: the p values of a family, each in 0..1.

    Returns:
        Adjusted p values in the order given; each is compared with alpha.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    worst = 0.0
    for step, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - step) * float(p[index])))
        adjusted[index] = worst
    return [float(value) for value in adjusted]
