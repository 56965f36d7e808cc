"""PFedRec (Zhang et al. 2023), dual personalisation: a private score function and locally tuned item rows.

    logit = theta_u . (e_i + Delta_ui) + b_u

Delta_u is the local fine-tuning of the item rows that the client trains on: it starts at zero with fresh moments
each time the client takes part, its last value is kept for evaluation, and it never leaves the client; the
gradient with respect to e_i is uploaded (algorithm.md section 5).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from fedvlr_plugin.backbones.base import ClientView, PrivateItemsKind, StateGroup
from fedvlr_plugin.backbones.fedavg import FedAvg
from fedvlr_plugin.declarations import ProfileRule, SecondsPerSample
from fedvlr_plugin.fusion.views import Fusion


class PFedRec(FedAvg):
    """Private score function theta_u [d], b_u and fresh private item rows; alpha_u = 1 / |S_t|."""

    name: ClassVar[str] = "PFedRec"
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "equal"
    linear: ClassVar[bool] = True
    own_rows: ClassVar[PrivateItemsKind] = "fresh"
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"head", "router", "own"})

    new_items_row: ClassVar[bool] = False
    profile_search: ClassVar[tuple[ProfileRule, ...]] = ()
    seconds_per_sample: ClassVar[SecondsPerSample] = SecondsPerSample(2.0e-7, 2.2e-7, 2.6e-7)

    def logits(self, x: ClientView) -> torch.Tensor:
        return (x.private("theta") * (x.item() + x.own())).sum(-1) + x.private("b")[..., 0]
