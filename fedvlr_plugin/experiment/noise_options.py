"""The noise that Table 4 and the privacy audit show: which mechanisms, at which levels."""

from __future__ import annotations

from dataclasses import dataclass

NOISES = ("paper", "accounted")


EPSILONS = (1.0, 2.0, 4.0, 8.0)


SMOKE_EPSILONS = (8.0,)


NOISE_SCALE = 0.001


CLIP = 0.05


@dataclass(frozen=True)
class NoiseOptions:
    """What noise to show; see `add_noise_options`."""

    noise: tuple[str, ...] = NOISES
    epsilons: tuple[float, ...] = EPSILONS
    delta: float | None = None
    clip: float = CLIP
    adaptive_quantile: float | None = None
    noise_scale: float = NOISE_SCALE
