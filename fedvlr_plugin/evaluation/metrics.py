"""Hit rate and NDCG of one held-out item per user, averaged over ties (algorithm.md section 6).

With g candidates above the positive and t tied with it, a metric is the mean over the ranks g ... g + t (counted from
0); without ties this equals RecBole's evaluator. Nothing is rounded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.ranks import Ranks

FloatArray = npt.NDArray[np.float64]
K = 50


def hit_rate(ranks: Ranks, k: int = K) -> FloatArray:
    """Compute for each user the probability that the positive is among the first k, `[n]` in 0..1; k is at least 1."""
    return _mean_gain(ranks, np.ones(_checked(k)))


def ndcg(ranks: Ranks, k: int = K) -> FloatArray:
    """Compute for each user the mean gain 1 / log2(rank + 2), zero from rank k on, `[n]` in 0..1; k is at least 1."""
    return _mean_gain(ranks, 1.0 / np.log2(np.arange(_checked(k)) + 2.0))


def reciprocal_rank(ranks: Ranks, k: int = K) -> FloatArray:
    """`[n]`, per user, the expected gain 1 / (rank + 1) in 0..1, zero from rank k on."""
    return _mean_gain(ranks, 1.0 / (np.arange(_checked(k)) + 1.0))


def summary(ranks: Ranks, k: int = K) -> dict[str, float]:
    """Compute the mean metrics over all users, and separately over users with a warm and with a cold positive.

    Args:
        ranks: of the held-out items.
        k: the cut-off, at least 1.

    Returns:
        `hr@k` and `ndcg@k` in percent; the counts `users` and `cold_users`; `cold_share` in percent; and, with the
        suffixes `_warm` and `_cold`, the metrics over users whose positive does or does not occur in training. These
        keys are absent if there is no such user.

    Raises:
        ConfigError: k is below 1.
    """
    hits, gains = 100.0 * hit_rate(ranks, k), 100.0 * ndcg(ranks, k)
    result = {
        f"hr@{k}": float(hits.mean()),
        f"ndcg@{k}": float(gains.mean()),
        "users": float(len(ranks)),
        "cold_users": float(ranks.cold.sum()),
        "cold_share": 100.0 * float(ranks.cold.mean()),
    }
    for suffix, chosen in (("warm", ~ranks.cold), ("cold", ranks.cold)):
        if chosen.any():
            result[f"hr@{k}_{suffix}"] = float(hits[chosen].mean())
            result[f"ndcg@{k}_{suffix}"] = float(gains[chosen].mean())
    return result


def _mean_gain(ranks: Ranks, gains: FloatArray) -> FloatArray:
    """Mean of `gains[g], ..., gains[g + t]` per user, gains beyond the list being zero."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    last = len(gains)
    begin = np.minimum(ranks.above, last)
    end = np.minimum(ranks.above + ranks.tied + 1, last)
    mean: FloatArray = (total[end] - total[begin]) / (ranks.tied + 1)
    return mean


def _checked(k: int) -> int:
    if k < 1:
        raise ConfigError(f"the cut-off k of a metric must be at least 1, got {k}")
    return k
