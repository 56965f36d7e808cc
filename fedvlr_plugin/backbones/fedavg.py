"""FedAvg (McMahan et al. 2017) as the paper's backbone: logit = theta_u . e_i + b_u, weights by sample count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from fedvlr_plugin.backbones.base import Backbone, ClientView, StateGroup, linear_head, paper_tables
from fedvlr_plugin.declarations import ProfileRule, SecondsPerSample
from fedvlr_plugin.fusion.views import Fusion

DECIDES_CLAIMS = ProfileRule("paper", {"method": "grid", "seeds": 5, "priority": 0}, {"none", "mlp", "blfm"})
"""For backbones whose rows decide the paper's claims: the whole grid and five seeds, before the other cells."""


class FedAvg(Backbone):
    """Private linear head theta_u `[width]`, b_u `[1]`; alpha_u = n_u / sum of n_u over the cohort."""

    name: ClassVar[str] = "FedAvg"
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "vbpr", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "samples"
    linear: ClassVar[bool] = True
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"router"})

    new_items_row: ClassVar[bool] = True
    profile_search: ClassVar[tuple[ProfileRule, ...]] = (DECIDES_CLAIMS,)
    seconds_per_sample: ClassVar[SecondsPerSample] = SecondsPerSample(6.0e-8, 7.0e-8, 1.5e-7)

    @classmethod
    def paper_parameters(cls, fusion: Fusion, users: int, items: int, width: int) -> int | None:
        """n w, with views 3 n w (and the router); "+VBPR" 8 w (2 U + n)."""
        return 8 * width * (2 * users + items) if fusion == "vbpr" else paper_tables(fusion, items, width)

    @classmethod
    def paper_width(cls, fusion: Fusion, width: int) -> int:
        """8 w for "+VBPR": the paper's form has features of width 512 = 8 * 64."""
        return 8 * width if fusion == "vbpr" else width

    def initial_private(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        return linear_head(self.width, generator)

    def logits(self, x: ClientView) -> torch.Tensor:
        return (x.private("theta") * x.item()).sum(-1) + x.private("b")[..., 0]
