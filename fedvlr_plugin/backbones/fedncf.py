"""FedNCF (Perifanis & Efraimidis 2022): neural collaborative filtering with private user vectors (section 5).

logit = scorer([tower([u_mlp ; i_mlp]) ; u_mf * i_mf]),   tower 2d -> d -> d/2 -> d/4, ReLU after each,
scorer d/4 + d -> 1. With fusion the item vectors are i_mlp + e_i and i_mf + e_i, so e_i receives both gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from fedvlr_plugin.backbones.base import Backbone, BackboneParams, ClientView, StateGroup
from fedvlr_plugin.declarations import ProfileRule, SecondsPerSample
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.views import Fusion


def tower_parameters(width: int) -> int:
    """Count the tower 2w -> w -> w/2 -> w/4 and the scorer w/4 + w -> 1, with biases."""
    w = width
    return (2 * w * w + w) + (w * w // 2 + w // 2) + (w * w // 8 + w // 4) + (w // 4 + w + 1)


class FedNCF(Backbone):
    """Shared item tables `i_mlp`, `i_mf` [n, d], tower and scorer, all broadcast; private `u_mlp`, `u_mf` [d].

    Raises `ConfigError` when 4 does not divide d.
    """

    name: ClassVar[str] = "FedNCF"
    needs_id_views: ClassVar[bool] = False
    forgets: ClassVar[frozenset[StateGroup]] = frozenset()

    profile_settings: ClassVar[tuple[ProfileRule, ...]] = (
        # no closed form: one client in twelve, or the quick profile takes longer than its five minutes
        ProfileRule("quick", {"participation": 0.08, "rounds": 16, "eval_every": 8}),
        ProfileRule("quick", {"rounds": 12, "eval_every": 6}, {"blfm"}),
    )
    seconds_per_sample: ClassVar[SecondsPerSample] = SecondsPerSample(8.0e-7, 9.0e-7, 2.0e-6)

    @classmethod
    def paper_parameters(cls, fusion: Fusion, users: int, items: int, width: int) -> int | None:
        """2 w (n + U) and the tower; with views 2 w U + 10 n w and 142,913 ("+MLP") or 180,420 ("+ours")."""
        if fusion == "none":
            return 2 * width * (items + users) + tower_parameters(width)
        layers = {"mlp": 142_913, "blfm": 180_420}
        return 2 * width * users + 10 * items * width + layers[fusion] if fusion in layers else None

    def __init__(self, params: BackboneParams, dim: int, width: int) -> None:
        if dim % 4:
            raise ConfigError(f"FedNCF's tower halves its width twice: dim must be a multiple of 4, got {dim}")
        super().__init__(params, dim, width)

    def initial_private(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        names = ("u_mlp", "u_mf")
        return {n: 0.1 * torch.randn(self.dim, dtype=torch.float64, generator=generator) for n in names}

    def item_tables(self) -> tuple[str, ...]:
        return ("i_mlp", "i_mf")

    def shared_layers(self) -> Mapping[str, tuple[int, int]]:
        d = self.dim
        return {
            "tower1": (2 * d, d),
            "tower2": (d, d // 2),
            "tower3": (d // 2, d // 4),
            "scorer": (d // 4 + d, 1),
        }

    def joins(self) -> Mapping[str, str]:
        return {"tower1": "i_mlp"}

    def logits(self, x: ClientView) -> torch.Tensor:
        i_mf = x.table("i_mf")
        if x.has_item:
            i_mf = i_mf + x.item()
        hidden = torch.relu(x.joined("tower1", x.private("u_mlp"), "i_mlp"))
        for name in ("tower2", "tower3"):
            hidden = torch.relu(x.linear(name, hidden))
        return x.matched("scorer", hidden, x.private("u_mf"), i_mf)
