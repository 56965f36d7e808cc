"""What a promise allows any membership test: upper bounds on its AUC.

(epsilon, delta)-privacy bounds the power of every test at false positive rate x by (Kairouz, Oh & Viswanath, ICML 2015)

    f(x) = min(1, e^eps x + delta, 1 - e^-eps (1 - delta - x)),      AUC <= integral of f over [0, 1].

T rounds of a Gaussian mechanism that every client takes part in (q = 1) are one Gaussian of mu = sqrt(T) / z (Dong, Roth &
Su 2022), whose best test has AUC = Phi(mu / sqrt 2): smaller than the first bound, and reached where the upload has the
full length C. Imports `errors`.
"""

from __future__ import annotations

import math

from scipy.stats import norm

from fedvlr_plugin.errors import ConfigError


def auc_bound(epsilon: float, delta: float) -> float:
    """The largest AUC that (epsilon, delta) allows; 1 for an infinite epsilon."""
    if epsilon < 0 or not 0 <= delta < 1:
        raise ConfigError(f"epsilon must be at least 0 and delta in [0, 1), got {epsilon:g} and {delta:g}")
    if epsilon > 700:
        return 1.0
    grows = math.exp(epsilon)
    cross = (1.0 - delta) / (grows + 1.0)  # where the two slanted lines meet
    height = grows * cross + delta
    rising = 0.5 * (delta + height) * cross
    levelling = 0.5 * (height + 1.0) * (1.0 - delta - cross)
    return rising + levelling + delta


def gaussian_auc(noise_multiplier: float, rounds: int) -> float:
    """The AUC of the best test against T rounds of the Gaussian mechanism at q = 1; 1 without noise."""
    if noise_multiplier == 0:
        return 1.0
    return float(norm.cdf(math.sqrt(rounds) / noise_multiplier / math.sqrt(2.0)))
