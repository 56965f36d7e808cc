"""What both engines are built from: histories, sampler, private state, shapes. Imports the federation's parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedvlr_plugin.backbones.base import Backbone
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.federation.histories import Histories
from fedvlr_plugin.federation.samples import Sampler
from fedvlr_plugin.fusion.router import RouterShape
from fedvlr_plugin.fusion.views import FusionSettings

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class LocalProblem:
    """The clients' side of a run, common to both engines.

    Attributes:
        backbone, fusion: what is learned. router: the router's sizes, None without one.
        histories, sampler: who trains on what. pairs: BPR over pairs instead of cross-entropy.
    """

    spec: RunSpec
    backbone: Backbone
    fusion: FusionSettings
    router: RouterShape | None
    histories: Histories
    sampler: Sampler
    pairs: bool
    dtype: torch.dtype
    device: torch.device

    def clients(self) -> torch.Tensor:
        """User ids of this process's clients, ascending."""
        return self.histories.order.sort().values

    def client_weights(self, cohort: torch.Tensor) -> torch.Tensor:
        """alpha_u of the cohort's clients (user ids), `[len(cohort)]`, float64 until cast."""
        if self.backbone.client_weight == "equal":
            weights = torch.full((len(cohort),), 1.0 / max(len(cohort), 1), dtype=torch.float64, device=self.device)
        else:
            sizes = self.histories.weights[cohort].to(torch.float64)
            weights = sizes / sizes.sum().clamp(min=1.0)
        return weights.to(self.dtype)


def local_problem(
    spec: RunSpec,
    backbone: Backbone,
    fusion: FusionSettings,
    interactions: Interactions,
    device: torch.device,
    users: torch.Tensor | None = None,
) -> LocalProblem:
    """Puts the clients' side of a run together, for all clients or the `users` of this process."""
    dtype = DTYPES[spec.dtype]
    histories = Histories(interactions, device, users)
    pairs = fusion.kind == "vbpr"
    sampler = Sampler(histories, spec.protocol, spec.training.batch_size, spec.seed, pairs, dtype)
    router = RouterShape(fusion.n_views, fusion.width, spec.model.router_hidden) if fusion.routed else None
    return LocalProblem(spec, backbone, fusion, router, histories, sampler, pairs, dtype, device)
