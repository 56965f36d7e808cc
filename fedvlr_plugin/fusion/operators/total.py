"""The view `sum`: v + c + x, the plain sum of the normalised modalities (algorithm.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedvlr_plugin.fusion.operators import VIEWS, ViewOperator


@VIEWS.register("sum")
class SumView(ViewOperator):
    """Adds the inputs; no parameters."""

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(tuple(inputs)).sum(0)
