"""The view `mlp`: a three-layer MLP on the concatenation, Md -> 2d -> d -> d with ReLU between (section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedvlr_plugin.fusion.operators import VIEWS, ViewOperator, make_linear


@VIEWS.register("mlp")
class MLPView(ViewOperator):
    """Mixes all inputs non-linearly; also the whole fusion of the "+MLP" rows."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__(names, dim, generator)
        self.layers = torch.nn.Sequential(
            make_linear(len(self.names) * dim, 2 * dim, generator),
            torch.nn.ReLU(),
            make_linear(2 * dim, dim, generator),
            torch.nn.ReLU(),
            make_linear(dim, dim, generator),
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        fused: torch.Tensor = self.layers(torch.cat(tuple(inputs), dim=1))
        return fused
