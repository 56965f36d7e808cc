"""A view: the smooth maximum of its inputs, log(mean_m exp(t x_m)) / t with a learned t per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fedvlr_plugin.fusion.operators import ViewOperator


class SoftMaximum(ViewOperator):
    """Smooth maximum over the inputs; t `[d]` starts at 1 and stays above 0 as the exponential of a parameter."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__(names, dim, generator)
        self.log_sharpness = torch.nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        sharpness = self.log_sharpness.exp()
        summed = torch.logsumexp(torch.stack(tuple(inputs)) * sharpness, dim=0)
        return (summed - math.log(len(self.names))) / sharpness
