"""FCF (Ammad-ud-din et al. 2019): as FedAvg, theta_u . e_i + b_u, but every client weighs the same."""

from __future__ import annotations

from typing import ClassVar, Literal

from fedvlr_plugin.backbones.base import StateGroup
from fedvlr_plugin.backbones.fedavg import FedAvg
from fedvlr_plugin.fusion.views import Fusion


class FCF(FedAvg):
    """Private linear head; alpha_u = 1 / |S_t|."""

    name: ClassVar[str] = "FCF"
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "equal"
    new_items_row: ClassVar[bool] = False
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"head", "router"})
