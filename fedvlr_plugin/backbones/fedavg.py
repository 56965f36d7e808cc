"""FedAvg (McMahan et al. 2017) as the paper's backbone: logit = theta_u . e_i + b_u, weights by sample count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from fedvlr_plugin.backbones.base import Backbone, ClientView, StateGroup, linear_head
from fedvlr_plugin.fusion.views import Fusion


class FedAvg(Backbone):
    """Private linear head theta_u [width], b_u; alpha_u = n_u / sum of n_u over the cohort."""

    name: ClassVar[str] = "FedAvg"
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "vbpr", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "samples"
    linear: ClassVar[bool] = True
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"router"})

    def initial_private(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        return linear_head(self.width, generator)

    def logits(self, x: ClientView) -> torch.Tensor:
        return (x.private("theta") * x.item()).sum(-1) + x.private("b")[..., 0]
