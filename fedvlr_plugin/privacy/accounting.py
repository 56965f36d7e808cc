"""Privacy accounting: epsilon of the Poisson-sampled Gaussian mechanism over T rounds, and its inverses.

    one round    every user is drawn with probability q; the sum of uploads, each of L2 norm <= C, + N(0, (z C)^2)
    adjacency    add or remove one user, that is everything this user ever uploads ("user-level")
    a run        T such rounds; (epsilon, delta) by privacy loss distributions (PLD), with Renyi (RDP) as a check

Any two of (epsilon, z, T) give the third, for a given delta and q. All figures are upper bounds: the package
dp-accounting rounds the privacy loss up, and a calibrated z is rounded up. U, q and T count as public.
"""

from __future__ import annotations

import functools
import math
from importlib import import_module
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    from types import ModuleType

    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

RESOLUTION = 4e-4  # step of the discretised privacy loss, as a share of epsilon
FINEST_STEP = 1e-5
RDP_IS_CLOSE = 20.0  # below this epsilon
BEYOND_PLD = 1e5  # an epsilon above this is RDP's
ORDERS_SAMPLED = (*range(2, 65), 80, 96, 128, 256, 512, 1024)  # whole ones have a closed form
LARGEST_NOISE = 1e6
SMALLEST_NOISE = 1e-3
MOST_ROUNDS = 10**6


class Accountant:
    """The privacy spent by rounds of one mechanism.

    Args:
        noise_multiplier: z, above 0 and at most `LARGEST_NOISE`.
        sampling: q, probability of a user to be drawn, in (0, 1].
        delta: in (0, 1).
        rounds: about how many rounds are planned; it sets the resolution of the arithmetic, not the result.

    Raises:
        ConfigError: an argument out of its range.
        MissingExtraError: dp-accounting is not installed.
    """

    def __init__(self, noise_multiplier: float, sampling: float, delta: float, rounds: int) -> None:
        check(noise_multiplier > 0, "noise_multiplier", noise_multiplier, "above 0")
        check(noise_multiplier <= LARGEST_NOISE, "noise_multiplier", noise_multiplier, f"at most {LARGEST_NOISE:g}")
        check(0 < sampling <= 1, "sampling", sampling, "in (0, 1]")
        check(0 < delta < 1, "delta", delta, "in (0, 1)")
        check(rounds >= 1, "rounds", rounds, "at least 1")
        self.noise_multiplier, self.sampling, self.delta = noise_multiplier, sampling, delta
        self._one_round: tuple[float, PrivacyLossDistribution] | None = None
        self._step = max(RESOLUTION * self.epsilon_rdp(rounds), FINEST_STEP)
        if (
            RDP_IS_CLOSE < self.epsilon_rdp(rounds) < BEYOND_PLD
        ):  # a first estimate by PLD sets the step of the final one
            self._step = max(RESOLUTION * self._epsilon_pld(rounds), FINEST_STEP)

    def epsilon(self, rounds: int) -> float:
        """Compute epsilon after `rounds` rounds, by PLD."""
        if rounds == 0:
            return 0.0
        proven = self.epsilon_rdp(rounds)
        return proven if proven >= BEYOND_PLD else self._epsilon_pld(rounds)

    def epsilon_rdp(self, rounds: int) -> float:
        """Compute an upper bound of epsilon after `rounds` rounds by Renyi divergences, which is faster and looser."""
        return 0.0 if rounds == 0 else _epsilon_rdp(self.noise_multiplier, self.sampling, self.delta, rounds)

    def _epsilon_pld(self, rounds: int) -> float:
        if self.sampling == 1.0:  # T Gaussians of multiplier z are one of z / sqrt(T)
            composed = self._distribution(self.noise_multiplier / math.sqrt(rounds))
        else:
            if self._one_round is None or self._one_round[0] != self._step:
                self._one_round = self._step, self._distribution(self.noise_multiplier)
            composed = self._one_round[1].self_compose(rounds)
        return float(composed.get_epsilon_for_delta(self.delta))

    def _distribution(self, noise_multiplier: float) -> PrivacyLossDistribution:
        accounting = _dp_accounting()
        return accounting.pld.privacy_loss_distribution.from_gaussian_mechanism(
            noise_multiplier,
            value_discretization_interval=self._step,
            sampling_prob=self.sampling,
            neighboring_relation=accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        )


@functools.lru_cache(maxsize=4096)
def epsilon_of(noise_multiplier: float, rounds: int, delta: float, sampling: float = 1.0) -> float:
    """Compute epsilon of a run.

    Args:
        noise_multiplier: z, at least 0.
        rounds: T, at least 1.
        delta: in (0, 1).
        sampling: q, in (0, 1].

    Returns:
        Epsilon, infinite without noise.

    Raises:
        ConfigError: an argument out of its range.
        MissingExtraError: dp-accounting is not installed.

    Example:
        >>> round(epsilon_of(noise_multiplier=4.0, rounds=20, delta=1e-3), 2)
        3.61
        >>> epsilon_of(noise_multiplier=0.0, rounds=20, delta=1e-3)
        inf
    """
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "at least 0")
    return math.inf if noise_multiplier == 0 else Accountant(noise_multiplier, sampling, delta, rounds).epsilon(rounds)


@functools.lru_cache(maxsize=256)
def noise_for(epsilon: float, rounds: int, delta: float, sampling: float = 1.0) -> float:
    """Find the smallest z, to four digits and rounded up, with which T rounds cost at most epsilon.

    Args:
        epsilon: above 0 and finite.
        rounds: T, at least 1.
        delta: in (0, 1).
        sampling: q, in (0, 1].

    Raises:
        ConfigError: an argument out of its range, or more noise is needed than can be accounted for.
        MissingExtraError: dp-accounting is not installed.

    Example:
        >>> round(noise_for(epsilon=8.0, rounds=20, delta=1e-3), 2)
        2.15
    """
    check(epsilon > 0 and math.isfinite(epsilon), "epsilon", epsilon, "above 0 and finite")

    def spent(z: float) -> float:
        return epsilon_of(z, rounds, delta, sampling)

    high = 1.0
    while spent(high) > epsilon:
        high *= 2.0
        if high > LARGEST_NOISE:
            raise ConfigError(
                f"epsilon {epsilon:g} for {rounds} rounds needs a noise multiplier above {LARGEST_NOISE:g}; "
                "ask for a larger epsilon or fewer rounds"
            )
    low = high / 2.0
    while low > SMALLEST_NOISE and spent(low) <= epsilon:
        low, high = low / 2.0, low
    aside = 1.00005
    while high / low > 1.0002 and spent(low) > epsilon:
        middle = math.sqrt(low * high)
        if 0.0 < spent(high) < spent(low) < math.inf:
            # log epsilon is nearly straight over log z: aim at the crossing, a little to either side in turn
            share = math.log(spent(low) / epsilon) / math.log(spent(low) / spent(high))
            aimed = low * (high / low) ** share * aside
            middle = aimed if low < aimed < high else middle
        low, high, aside = (low, middle, 1 / aside) if spent(middle) <= epsilon else (middle, high, 1 / aside)
    digits = 10.0 ** (4 - math.ceil(math.log10(high)))
    rounded = math.ceil(high * digits) / digits
    while spent(rounded) > epsilon:  # more noise costs less, but for the accountant's own grid
        rounded = math.ceil(rounded * digits + 1.0) / digits
    return rounded


def rounds_for(epsilon: float, noise_multiplier: float, delta: float, sampling: float = 1.0) -> int:
    """Find the largest number of rounds with noise z that cost at most epsilon.

    Args:
        epsilon: above 0 and finite.
        noise_multiplier: z, above 0.
        delta: in (0, 1).
        sampling: q, in (0, 1].

    Raises:
        ConfigError: an argument out of its range; one round costs more already, or a million rounds cost less.
        MissingExtraError: dp-accounting is not installed.

    Example:
        >>> rounds_for(epsilon=8.0, noise_multiplier=4.0, delta=1e-3)
        69
    """
    check(epsilon > 0 and math.isfinite(epsilon), "epsilon", epsilon, "above 0 and finite")

    def within(rounds: int) -> bool:
        return epsilon_of(noise_multiplier, rounds, delta, sampling) <= epsilon

    if not within(1):
        spent = epsilon_of(noise_multiplier, 1, delta, sampling)
        raise ConfigError(
            f"one round with noise multiplier {noise_multiplier:g} already costs epsilon {spent:.3g}, more than "
            f"{epsilon:g}; use more noise or a smaller share of clients"
        )
    low, high = 1, 2
    while within(high):
        low, high = high, 2 * high
        if low >= MOST_ROUNDS:
            raise ConfigError(f"epsilon {epsilon:g} allows more than {MOST_ROUNDS:,} rounds; use less noise")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


def check(holds: bool, name: str, got: float, allowed: str) -> None:
    """Raise `ConfigError` unless a condition holds.

    Args:
        holds: the condition.
        name: of the argument.
        got: its value.
        allowed: the allowed values, for the message.
    """
    if not holds:
        raise ConfigError(f"{name} must be {allowed}, got {got:g}")


@functools.lru_cache(maxsize=4096)
def _epsilon_rdp(noise_multiplier: float, sampling: float, delta: float, rounds: int) -> float:
    accounting = _dp_accounting()
    event = accounting.GaussianDpEvent(noise_multiplier)
    if sampling == 1.0:
        accountant = accounting.rdp.RdpAccountant()
    else:
        event = accounting.PoissonSampledDpEvent(sampling, event)
        accountant = accounting.rdp.RdpAccountant(ORDERS_SAMPLED)
    return float(accountant.compose(event, rounds).get_epsilon(delta))


def _dp_accounting() -> ModuleType:
    try:
        accounting = import_module("dp_accounting")
        import_module("dp_accounting.pld.privacy_loss_distribution")
        import_module("dp_accounting.rdp")
    except ImportError:
        raise missing_extra("dp-accounting", "dp", "accounting for privacy") from None
    return accounting
