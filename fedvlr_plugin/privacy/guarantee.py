"""What a run with noise promises its users, in the form that stands beside its numbers.

The promise is about the shared model and everything else that the server learns in `rounds` rounds. Not covered:

* choosing hyper-parameters, the best round, or the moment to stop by validation: each reads users' held-out items
  without noise, and so do the losses and hit rates that a run reports about itself;
* side channels: who answers, who drops out and when, how long it takes; a secure sum that is given up;
* the accuracy of floating-point noise: its lowest bits are not those of a true Gaussian and can betray the sum;
* the rounding of secure aggregation, which can lengthen a clipped upload by half a step times the root of its size;
* the user's own device, which sees its own data, and whatever it recommends to its user.

Covered are clients that drop out, as long as who does has nothing to do with anyone's data: they add nothing to the sum,
the denominator and the noise stay as they are, and the round is paid for. Covered is whoever sees the sum; a server that
collects uploads in the open and adds the noise itself sees uploads (`audit` shows what these tell), so pair the noise
with `secure`, or trust the server.
"""

from __future__ import annotations

import math

from fedvlr_plugin.config import Frozen, RunSpec
from fedvlr_plugin.privacy.accounting import check, epsilon_of, noise_for

ADJACENCY = "add or remove one user"


def default_delta(n_users: int) -> float:
    """A tenth of 1 / U: at delta = 1 / U one could publish a random user outright and keep the promise.

    >>> round(default_delta(204), 6)
    0.00049
    """
    check(n_users >= 1, "the number of users", n_users, "at least 1")
    return 0.1 / n_users


class PrivacyGuarantee(Frozen):
    """What a run with noise promises, to stand beside its numbers.

    Attributes:
        mechanism: `gaussian` or `paper_noise`. epsilon: None = infinite, no promise. delta: None with it.
        noise_multiplier: z in all; with adaptive clipping a part of it goes into the noisy counts.
        clip: C, where it is fixed. rounds: those that were meant; stopping early spends less.
    """

    mechanism: str
    epsilon: float | None
    delta: float | None
    noise_multiplier: float | None
    clip: float | None
    adaptive_quantile: float | None
    noise_scale: float | None
    sampling: float
    rounds: int
    adjacency: str = ADJACENCY


def guarantee_of(spec: RunSpec, n_users: int) -> PrivacyGuarantee | None:
    """What a run on `n_users` users promises; None where it adds no noise.

    Raises `ConfigError` where its epsilon cannot be reached, `MissingExtraError` without dp-accounting.
    """
    wanted, training = spec.conditions.privacy, spec.training
    if wanted is None:
        return None
    delta = default_delta(n_users) if wanted.delta is None else wanted.delta
    z = wanted.noise_multiplier
    if wanted.epsilon is not None:
        z = noise_for(wanted.epsilon, training.rounds, delta, training.participation)
    epsilon = math.inf if z is None else epsilon_of(z, training.rounds, delta, training.participation)
    finite = math.isfinite(epsilon)
    return PrivacyGuarantee(
        mechanism=wanted.mechanism,
        epsilon=epsilon if finite else None,
        delta=delta if finite else None,
        noise_multiplier=z,
        clip=wanted.clip if wanted.mechanism == "gaussian" and wanted.adaptive_quantile is None else None,
        adaptive_quantile=wanted.adaptive_quantile,
        noise_scale=wanted.noise_scale,
        sampling=training.participation,
        rounds=training.rounds,
    )


def format_epsilon(promised: PrivacyGuarantee | None) -> str:
    """`∞` where nothing is promised, else epsilon with three digits: `8`, `0.682`."""
    return "∞" if promised is None or promised.epsilon is None else f"{promised.epsilon:.3g}"
