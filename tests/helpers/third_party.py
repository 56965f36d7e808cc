"""A backbone from outside, as another package would ship it: 30 lines and one entry point.

    [project.entry-points."fedvlr_plugin.backbones"]
    MetricFed = "my_package.metric_fed:MetricFed"

Items score by their distance to a private point: logit = b_u - |c_u - e_i|^2.
"""

import torch
from pydantic import Field

from fedvlr_plugin.backbones import Backbone, BackboneParams


class MetricFedParams(BackboneParams):
    spread: float = Field(0.1, gt=0)


class MetricFed(Backbone):
    name = "MetricFed"
    Params = MetricFedParams
    client_weight = "samples"

    def initial_private(self, generator):
        point = self.params.spread * torch.randn(self.width, dtype=torch.float64, generator=generator)
        return {"c": point, "b": torch.zeros(1, dtype=torch.float64)}

    def logits(self, x):
        return x.private("b")[..., 0] - ((x.private("c") - x.item()) ** 2).sum(-1)
