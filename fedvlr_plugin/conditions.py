"""Conditions of a run beside the plain protocol: privacy, secure and robust aggregation, attacks, faults.

All are off unless given, and each that is given is part of a run's identity and stands beside its numbers. What
they do is in `privacy`, `secure`, `robust` and `federation.aggregation`. Imports `frozen` only.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedvlr_plugin.frozen import Frozen


class Privacy(Frozen):
    """Noise on what the server sums.

    `gaussian`: user-level differential privacy. Each client's whole upload is clipped to `clip` (L2), and noise of
    standard deviation `noise_multiplier * clip` goes on the sum, on every entry. Give `epsilon` instead and the
    multiplier is calibrated to the run's rounds and participation.
    `paper_noise`: Gaussian noise of standard deviation `noise_scale` on each client's gradients, no clipping, as in
    Table 4 of the paper. It promises nothing (epsilon is infinite).
    """

    mechanism: Literal["gaussian", "paper_noise"] = "gaussian"
    clip: float = Field(1.0, gt=0.0, description="C, bound of a client's upload")
    noise_multiplier: float | None = Field(None, ge=0.0, description="z")
    epsilon: float | None = Field(None, gt=0.0)
    delta: float | None = Field(None, gt=0.0, lt=1.0, description="None = below 1 / users")
    adaptive_quantile: float | None = Field(None, gt=0.0, lt=1.0, description="quantile that C follows; None = fixed C")
    noise_scale: float | None = Field(None, gt=0.0, description="of paper_noise")

    @model_validator(mode="after")
    def _one_of(self) -> Privacy:
        if self.mechanism == "paper_noise":
            if self.noise_scale is None or self.epsilon is not None or self.noise_multiplier is not None:
                raise ValueError("paper_noise takes noise_scale, and neither epsilon nor noise_multiplier")
        elif (self.epsilon is None) == (self.noise_multiplier is None) or self.noise_scale is not None:
            raise ValueError("gaussian takes exactly one of epsilon and noise_multiplier, and no noise_scale")
        return self


class Secure(Frozen):
    """Secure aggregation, simulated: the server learns the sum of quantised uploads and nothing of one client."""

    bound: float = Field(1.0, gt=0.0, description="largest size of an entry; larger ones are clamped and counted")
    threshold: float = Field(2 / 3, gt=0.5, le=1.0, description="share of the cohort that must answer in the end")
    lost_before: float = Field(0.0, ge=0.0, lt=1.0, description="clients lost before they send a masked upload")
    lost_after: float = Field(0.0, ge=0.0, lt=1.0, description="clients lost after they have sent it")


class Robust(Frozen):
    """How uploads are combined instead of a weighted sum, against clients that lie."""

    rule: Literal["norm_clip", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]
    clip: float | None = Field(None, gt=0.0, description="of norm_clip; None = the cohort's median norm")
    trim: float = Field(0.1, ge=0.0, lt=0.5, description="share cut off at each end by trimmed_mean")
    malicious: float = Field(0.2, ge=0.0, lt=0.5, description="share of liars that krum expects")


class Attack(Frozen):
    """Clients that lie: a fixed, drawn share of them changes what it uploads."""

    kind: Literal["sign_flip", "scaling", "promotion"]
    share: float = Field(0.1, ge=0.0, le=1.0)
    scale: float = Field(10.0, gt=0.0)
    item: int | None = Field(None, ge=0, description="0-based item to promote; None = the least popular one")


class Faults(Frozen):
    """Clients that fail, drawn anew each round.

    `dropout`: share that never starts. `stragglers`: share that trains at home but answers too late to be counted.
    """

    dropout: float = Field(0.0, ge=0.0, le=1.0)
    stragglers: float = Field(0.0, ge=0.0, le=1.0)


class Conditions(Frozen):
    """All conditions; None = off."""

    privacy: Privacy | None = None
    secure: Secure | None = None
    robust: Robust | None = None
    attack: Attack | None = None
    faults: Faults | None = None

    @property
    def per_client(self) -> bool:
        """Whether the server's step needs the uploads client by client."""
        return any(part is not None for part in (self.privacy, self.secure, self.robust, self.attack))

    @model_validator(mode="after")
    def _fit_together(self) -> Conditions:
        if self.robust is not None and (self.secure is not None or self.privacy is not None):
            raise ValueError(
                "robust rules look at single uploads, which secure aggregation hides and privacy bounds already; "
                "use one of robust, or secure and privacy"
            )
        return self
