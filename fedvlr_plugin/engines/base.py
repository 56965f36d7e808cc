"""The contract of an engine, and what both engines are built from.

An engine trains a cohort against a broadcast and scores items for clients. `LocalProblem` is the clients' side of a run:
histories, sampler, shapes. `LocalProgram` is one way of training a block of clients in the batched engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.uploads import Collect
from fedvlr_plugin.backbones.base import Backbone
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.engines.accumulation import SeparateUploads
from fedvlr_plugin.engines.client_state import BlockState
from fedvlr_plugin.engines.histories import Histories, HistoryBlock
from fedvlr_plugin.engines.sampling import BlockSampler, Sampler
from fedvlr_plugin.fusion.router import RouterShape
from fedvlr_plugin.fusion.views import FusionSettings


@dataclass
class Uplink:
    """The sum over the cohort of alpha_u times what client u uploads, and the round's accounts.

    Attributes:
        sums: by the broadcast's names and shapes (`Broadcast.named`).
        loss: mean local loss over steps, averaged over clients; a diagnostic that is no part of an upload.
        clients: clients that took at least one step.
        samples: samples they trained on.
        seconds: wall seconds by phase.
        left_out: clients whose upload does not count, by reason (`not finite`, `late`, ...).
        accounts: what the rule of a per-client round counts (`clipped`, `epsilon`, ...).
    """

    sums: dict[str, torch.Tensor]
    loss: float
    clients: int
    samples: int
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """How clients are executed. Both engines give the same result; see `sequential` and `batched`."""

    def local_round(
        self,
        broadcast: Broadcast,
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        """Run all local epochs of a cohort.

        Args:
            broadcast: what the server sends.
            cohort: user ids.
            weights: alpha_u, `[len(cohort)]`.
            round: counted from 1.
            collect: receives the uploads (of weight 1) client by client; `Uplink.sums` is empty then.
        """

    def score(self, broadcast: Broadcast, users: torch.Tensor) -> torch.Tensor:
        """Score all items for some users of this process, `[len(users), n_items]`."""

    def router_weights(self, broadcast: Broadcast) -> npt.NDArray[np.float64] | None:
        """w_u of every client of this process in the order of `LocalProblem.clients`, `[., G]`; None without a router."""

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        """A copy of the private state of this process's clients, as tensors by name.

        Args:
            moments: whether the optimisers' moments and counts of steps are in it. With them the next round goes on to
                the last bit; without them it is what evaluation needs, the cheap copy that is kept of the best round.
        """

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put a copy of `state` in force.

        Optimisers start anew where it holds no moments, and so do clients that it does not name. States that earlier
        versions stored are understood.

        Raises:
            ConfigError: the state is of other clients. KeyError, RuntimeError: a tensor is missing or misshapen.
        """


DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class LocalProblem:
    """The clients' side of a run, common to both engines.

    Attributes:
        spec: the run.
        backbone: the recommender that is trained.
        fusion: settings of the fusion.
        router: the router's sizes, None without one.
        histories: training histories of this process's clients.
        sampler: draws their samples.
        pairs: whether the loss is BPR over pairs instead of cross-entropy.
        dtype: of all parameters.
        device: where they are.
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
    """Put the clients' side of a run together.

    Args:
        spec: the run.
        backbone: the recommender.
        fusion: settings of the fusion.
        interactions: the split data.
        device: where to compute.
        users: user ids of this process's clients; all of them by default.
    """
    dtype = DTYPES[spec.dtype]
    histories = Histories(interactions, device, users)
    pairs = fusion.kind == "vbpr"
    sampler = Sampler(histories, spec.protocol, spec.training.batch_size, spec.seed, pairs, dtype)
    router = RouterShape(fusion.n_views, fusion.width, spec.model.router_hidden) if fusion.routed else None
    return LocalProblem(spec, backbone, fusion, router, histories, sampler, pairs, dtype, device)


class LocalProgram(Protocol):
    """How the batched engine trains a block of clients.

    Attributes:
        seconds: wall seconds by phase since they were last set to 0.
    """

    seconds: dict[str, float]

    def prepare(self, broadcast: Broadcast) -> None:
        """Take in what the server sends this round, and set the summed upload to zero."""

    def run(self, sampler: BlockSampler, state: BlockState, alpha: torch.Tensor, round: int) -> torch.Tensor:
        """Run all local epochs of a block; return each client's mean loss `[B]`.

        Args:
            sampler: the block's samples.
            state: the block's private state, changed in place.
            alpha: `[B]`, each client's weight in the summed upload.
            round: counted from 1.
        """

    def run_separately(self, sampler: BlockSampler, state: BlockState, round: int) -> SeparateUploads:
        """Run the same, keeping each client's upload (of weight 1)."""

    def collect(self) -> dict[str, torch.Tensor]:
        """The weighted sum of the uploads since `prepare`, by the broadcast's names and shapes."""

    def score(self, broadcast: Broadcast, history: HistoryBlock, state: BlockState) -> torch.Tensor:
        """Scores of all items, `[B, n_items]`."""
