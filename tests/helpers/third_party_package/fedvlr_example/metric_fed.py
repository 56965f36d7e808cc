"""A backbone: items score by their distance to a private point, logit = b_u - |c_u - e_i|^2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field

from fedvlr_plugin.backbones import Backbone, BackboneParams, ClientView
from fedvlr_plugin.declarations import Dimension, ProfileRule


class MetricFedParams(BackboneParams):
    """`spread`: standard deviation of the initial point, above 0."""

    spread: float = Field(0.1, gt=0)


class MetricFed(Backbone):
    """Private point c_u [width] and offset b_u [1]; clients weigh by their number of samples."""

    name: ClassVar[str] = "MetricFed"
    Params: ClassVar[type[BackboneParams]] = MetricFedParams
    client_weight: ClassVar[Literal["samples", "equal"]] = "samples"
    search: ClassVar[tuple[Dimension, ...]] = (Dimension("spread", (0.01, 0.1, 1.0), (("params.spread", 1.0),)),)
    profile_settings: ClassVar[tuple[ProfileRule, ...]] = (ProfileRule("quick", {"rounds": 12}),)

    def __init__(self, params: MetricFedParams, dim: int, width: int) -> None:
        super().__init__(params, dim, width)
        self.spread = params.spread

    def initial_private(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        point = self.spread * torch.randn(self.width, dtype=torch.float64, generator=generator)
        return {"c": point, "b": torch.zeros(1, dtype=torch.float64)}

    def logits(self, x: ClientView) -> torch.Tensor:
        return x.private("b")[..., 0] - ((x.private("c") - x.item()) ** 2).sum(-1)
