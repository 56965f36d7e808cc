"""How sure a mean over users is, and Holm's correction of a family of p values.

Intervals: the percentile bootstrap of scipy (algorithm.md sections 6 and 10). The user is the unit that is resampled.
With several seeds a user's value is first averaged over seeds, so that the interval speaks of the users and the spread
over seeds is shown apart.

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


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values in the order given, to be held against alpha one by one."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    worst = 0.0
    for step, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - step) * float(p[index])))
        adjusted[index] = worst
    return [float(value) for value in adjusted]
