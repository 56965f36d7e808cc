"""The options that Table 4 has beside those of every runner: which noise, how much. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math
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


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """Adds them to a parser."""
    group = parser.add_argument_group("noise")
    add = group.add_argument
    add(
        "--noise",
        nargs="+",
        choices=NOISES,
        default=list(NOISES),
        help="paper: on gradients that are not clipped, promises nothing; accounted: clipped, with an epsilon "
        "(default: both)",
    )
    add(
        "--epsilon",
        nargs="+",
        type=_above_zero,
        metavar="E",
        help="of the accounted noise, one run each (default: 1 2 4 8; with --profile smoke: 8)",
    )
    add("--delta", type=_share, metavar="D", help="of the promise; default: a tenth of 1 / users")
    add("--clip", type=_above_zero, default=CLIP, metavar="C", help=f"bound of a client's upload (default: {CLIP:g})")
    add("--adaptive-quantile", type=_share, metavar="Q", help="let the bound follow this quantile of the norms")
    add(
        "--noise-scale",
        type=_above_zero,
        default=NOISE_SCALE,
        metavar="S",
        help=f"standard deviation of the paper's noise, which the paper does not state (default: {NOISE_SCALE:g})",
    )


def noise_options(found: argparse.Namespace) -> NoiseOptions:
    """What was given, the rest filled in."""
    usual = SMOKE_EPSILONS if found.profile == "smoke" else EPSILONS
    return NoiseOptions(
        tuple(name for name in NOISES if name in found.noise),
        tuple(sorted(set(found.epsilon or usual))),
        found.delta,
        found.clip,
        found.adaptive_quantile,
        found.noise_scale,
    )


def _above_zero(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
