"""FedRAP (Li et al. 2024): a shared and a private item table, added (algorithm.md section 5).

    logit = theta_u . (P_ui + e_i) + b_u
    loss  = BCE + mu_t * mean|e_i| - lambda_t * MSE(P_ui, e_i)   over the distinct items of the batch,
    lambda_t = lambda * tanh(t / 10), mu_t = mu * tanh(t / 10), rounds t from 1.

The last term pushes the two tables apart and has no lower bound, so it is capped: the squared difference of an
entry counts up to `cap` (the gradient beyond is zero). With the defaults an entry reaches the cap only after the
tables are `sqrt(cap)` = 3 apart, three times the spread of a normalised view, so it does not act in an ordinary
run. The regularisers' gradients with respect to e are uploaded too.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as nnf
from pydantic import Field

from fedvlr_plugin.backbones.base import (
    BackboneParams,
    ClientView,
    PrivateItemsKind,
    Push,
    Slopes,
    StateGroup,
    paper_tables,
)
from fedvlr_plugin.backbones.fedavg import FedAvg
from fedvlr_plugin.declarations import Dimension, SecondsPerSample
from fedvlr_plugin.fusion.views import Fusion


class FedRAPParams(BackboneParams):
    """Hyper-parameters of FedRAP.

    Attributes:
        lam: lambda, weight of the squared difference of the two tables, at least 0.
        mu: weight of the mean absolute value of the shared table, at least 0.
        cap: squared difference of an entry up to which it counts, above 0.
    """

    lam: float = Field(0.1, ge=0.0)
    mu: float = Field(0.1, ge=0.0)
    cap: float = Field(9.0, gt=0.0)


class FedRAP(FedAvg):
    """Private theta_u [d], b_u and persistent private item rows P_u, zero at first; alpha_u = 1 / |S_t|."""

    name: ClassVar[str] = "FedRAP"
    Params: ClassVar[type[BackboneParams]] = FedRAPParams
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "equal"
    linear: ClassVar[bool] = True
    own_rows: ClassVar[PrivateItemsKind] = "persistent"
    has_penalty: ClassVar[bool] = True
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"head", "router", "own"})

    new_items_row: ClassVar[bool] = False
    search: ClassVar[tuple[Dimension, ...]] = (
        Dimension("penalty", (0.01, 0.1), (("params.lam", 1.0), ("params.mu", 1.0))),
    )
    seconds_per_sample: ClassVar[SecondsPerSample] = SecondsPerSample(3.5e-7, 4.0e-7, 4.5e-7)

    @classmethod
    def paper_parameters(cls, fusion: Fusion, users: int, items: int, width: int) -> int | None:
        """One table `[n, w]` more than FedAvg has: 2 n w, with views 4 n w (and the router)."""
        return paper_tables(fusion, items, width, own_tables=1)

    def __init__(self, params: FedRAPParams, dim: int, width: int) -> None:
        super().__init__(params, dim, width)
        self.rap = params

    def logits(self, x: ClientView) -> torch.Tensor:
        return (x.private("theta") * (x.item() + x.own())).sum(-1) + x.private("b")[..., 0]

    def penalty(self, x: ClientView, round: int) -> torch.Tensor | None:
        mu, lam, edge = self.penalty_push(round)
        item = x.item()
        apart = torch.clamp((x.own() - item) ** 2, max=edge**2)
        return x.mean(item.abs()) * mu - x.mean(apart) * lam

    def penalty_push(self, round: int) -> Push:
        ramp = math.tanh(round / 10)
        return Push(self.rap.mu * ramp, self.rap.lam * ramp, math.sqrt(self.rap.cap))

    def penalty_slopes(self, item: torch.Tensor, own: torch.Tensor, round: int) -> Slopes:
        """Compute, with x = P - e: d/de = mu sign(e) + 2 lambda x, d/dP = -2 lambda x where x^2 <= cap, else without x."""
        mu, lam, edge = self.penalty_push(round)
        apart, sign = own - item, item.sign()
        value = mu * torch.einsum("kd,kd->k", sign, item)
        value -= lam * torch.linalg.vector_norm(apart.clamp(-edge, edge), dim=1).square_()
        apart -= nnf.hardshrink(apart, edge)  # zero beyond the cap
        return Slopes(value, sign.mul_(mu).add_(apart, alpha=2 * lam), apart.mul_(-2 * lam))
