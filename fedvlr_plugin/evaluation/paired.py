"""Whether one model is better than another on the same users: paired randomisation test, corrected by Holm.

Under the null hypothesis the two models are exchangeable for each user, so the sign of every difference is a coin:
scipy's permutation test flips them. Users without a difference do not matter to it and are left out, which is
exact and saves most of the work for hit rates. Imports `evaluation.bootstrap`, numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedvlr_plugin.errors import DataError
from fedvlr_plugin.evaluation.bootstrap import BATCH_ELEMENTS, RESAMPLES, FloatArray, Interval, mean_interval

ALPHA = 0.05


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
