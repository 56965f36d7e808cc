"""The privacy guarantee of a run, in the form in which results report it.

It covers the shared model and everything else that the server learns in `rounds` rounds. Not covered:

* choosing hyper-parameters, the best round, or the moment to stop by validation: each reads users' held-out items
  without noise, and so do the losses and hit rates that a run reports about itself;
* side channels: who answers, who drops out and when, how long it takes; a secure sum that is given up;
* the accuracy of floating-point noise: its lowest bits are not those of a true Gaussian and can betray the sum;
* the rounding of secure aggregation, which can lengthen a clipped upload by half a step times the root of its size;
* the user's own device, which sees its own data, and what it recommends to its user.

Clients that drop out are covered as long as dropping out does not depend on anyone's data: they add nothing to the sum, the
denominator and the noise stay as they are, and the round is accounted for. The guarantee is against everyone who sees the
sum. A server that collects plain uploads and adds the noise itself sees the uploads (`audit` measures what they reveal): use
the noise together with `secure`, or trust the server.
"""

from __future__ import annotations

import math

from fedvlr_plugin.config import Frozen, RunSpec
from fedvlr_plugin.privacy.accounting import check, epsilon_of, noise_for

ADJACENCY = "add or remove one user"


def default_delta(n_users: int) -> float:
    """Return 0.1 / U: at delta = 1 / U the data of a random user could be published within the guarantee.

    Args:
        n_users: U, at least 1.

    Raises:
        ConfigError: `n_users` is below 1.

    Example:
        >>> round(default_delta(204), 6)
        0.00049
    """
    check(n_users >= 1, "the number of users", n_users, "at least 1")
    return 0.1 / n_users


class PrivacyGuarantee(Frozen):
    """The guarantee of a run with noise.

    Attributes:
        mechanism: `gaussian` or `paper_noise`.
        epsilon: None if it is infinite, so that there is no guarantee.
        delta: None if epsilon is None.
        noise_multiplier: z in total; with adaptive clipping a part of it is used for the noisy counts.
        clip: C; None if it is adaptive.
        adaptive_quantile: quantile of the norms that C follows; None if C is fixed.
        noise_scale: standard deviation of `paper_noise`.
        sampling: q, probability of a user to be drawn.
        rounds: planned rounds; stopping early spends less.
        adjacency: what two neighbouring data sets differ in.
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
    """Compute the guarantee of a run.

    Args:
        spec: the run.
        n_users: U.

    Returns:
        The guarantee; None for a run without noise.

    Raises:
        ConfigError: its epsilon cannot be reached.
        MissingExtraError: dp-accounting is not installed.
    """
    settings, training = spec.conditions.privacy, spec.training
    if settings is None:
        return None
    delta = default_delta(n_users) if settings.delta is None else settings.delta
    z = settings.noise_multiplier
    if settings.epsilon is not None:
        z = noise_for(settings.epsilon, training.rounds, delta, training.participation)
    epsilon = math.inf if z is None else epsilon_of(z, training.rounds, delta, training.participation)
    finite = math.isfinite(epsilon)
    return PrivacyGuarantee(
        mechanism=settings.mechanism,
        epsilon=epsilon if finite else None,
        delta=delta if finite else None,
        noise_multiplier=z,
        clip=settings.clip if settings.mechanism == "gaussian" and settings.adaptive_quantile is None else None,
        adaptive_quantile=settings.adaptive_quantile,
        noise_scale=settings.noise_scale,
        sampling=training.participation,
        rounds=training.rounds,
    )


def format_epsilon(promised: PrivacyGuarantee | None) -> str:
    """Format epsilon with three digits, `8` or `0.682`; `∞` without a guarantee."""
    return "∞" if promised is None or promised.epsilon is None else f"{promised.epsilon:.3g}"
