"""The view `gate`: sum_m sigmoid(W_m [v; c; x] + b_m) * m; the gates multiply the features (section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedvlr_plugin.fusion.operators import VIEWS, ViewOperator, make_linear


@VIEWS.register("gate")
class GateView(ViewOperator):
    """One gate of width d per input, all computed from the concatenation in a single product."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__(names, dim, generator)
        width = len(self.names) * dim
        self.gates = make_linear(width, width, generator)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        joined = torch.cat(tuple(inputs), dim=1)
        gated = torch.sigmoid(self.gates(joined)) * joined
        return gated.view(len(joined), len(self.names), self.dim).sum(1)
