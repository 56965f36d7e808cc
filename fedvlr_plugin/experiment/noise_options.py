"""The noise that Table 4 and the privacy audit show: which mechanisms, at which levels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedvlr_plugin.config import Frozen

SMOKE_EPSILONS = (8.0,)  # of the profile smoke


class NoiseOptions(Frozen):
    """What noise to show; the defaults of `fedvlr table4` and `fedvlr privacy audit` stand here.

    Attributes:
        noise: `paper` is noise on gradients that are not clipped and promises nothing; `accounted` is clipped, with an
            epsilon.
        epsilons: of the accounted noise, one run each.
        delta: of the promise; None = a tenth of 1 / users.
        clip: bound C of a client's upload.
        adaptive_quantile: lets the bound follow this quantile of the norms; None = the bound is fixed.
        noise_scale: standard deviation of the paper's noise, which the paper does not state.
    """

    noise: tuple[Literal["paper", "accounted"], ...] = ("paper", "accounted")
    epsilons: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    delta: float | None = Field(default=None, gt=0.0, lt=1.0)
    clip: float = Field(default=0.05, gt=0.0)
    adaptive_quantile: float | None = Field(default=None, gt=0.0, lt=1.0)
    noise_scale: float = Field(default=0.001, gt=0.0)
