"""An aggregation rule: long uploads count less, weights alpha_u |g_u|^-power, rescaled to the cohort's sum of weights."""

from __future__ import annotations

from typing import ClassVar

import torch

from fedvlr_plugin.aggregation.robust import RobustRule
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.config import Robust
from fedvlr_plugin.errors import ConfigError


class InverseNorm(RobustRule):
    """Weighted sum with weights that fall with the L2 norm of the upload.

    Settings: `params: {power: 1.0}`, at least 0; 0 is the plain weighted sum.

    Raises:
        ConfigError: `power` is no number of at least 0.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"power"})

    def __init__(self, settings: Robust) -> None:
        super().__init__(settings)
        power = (settings.params or {}).get("power", 1.0)
        if isinstance(power, bool) or not isinstance(power, int | float) or power < 0:
            raise ConfigError(f"inverse_norm: power must be a number of at least 0, got {power!r}")
        self.power = float(power)

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        smallest = torch.finfo(torch.float64).eps
        lowered = weights * uploads.norms().clamp(min=smallest) ** -self.power
        return self.weighted_sum(uploads, lowered * (weights.sum() / lowered.sum()))
