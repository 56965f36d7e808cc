"""A federation: server and clients put together, one round at a time (algorithm.md section 2, Algorithm 1).

    broadcast -> local epochs of the cohort -> weighted sum of uploads -> one pull-back -> one server step

Knows nothing of tables, files or hosts. Imports the federation's parts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.federation.batched import BatchedEngine
from fedvlr_plugin.federation.contract import Engine, Uplink
from fedvlr_plugin.federation.processes import join_processes, local_device
from fedvlr_plugin.federation.sequential import SequentialEngine
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.federation.setup import local_problem, make_backbone, make_fusion
from fedvlr_plugin.fusion.views import Fusion
from fedvlr_plugin.rng import draw_cohort


@dataclass(frozen=True)
class Best:
    """A copy of all parameters, shared and private, of one round."""

    server: dict[str, torch.Tensor]
    clients: object


class Federation:
    """Trains one row on one data set.

    Args:
        spec: the run. backbone, fusion: names, as parsed from the row.
        data: split interactions and item features.
        execution: engine, device, block size, memory budget.

    Raises:
        ConfigError: an unsupported fusion, unknown views or parameters, a budget that is too small.
    """

    def __init__(
        self,
        spec: RunSpec,
        backbone: str,
        fusion: Fusion,
        data: PreparedData,
        execution: ExecutionConfig | None = None,
    ) -> None:
        execution = execution or ExecutionConfig()
        self.spec, self.data = spec, data
        self.device = local_device(torch.device(execution.device))
        self.processes = join_processes(self.device)
        settings = make_fusion(fusion, spec.model)
        self.backbone = make_backbone(backbone, settings, spec.model)
        mine = self.processes.mine(data.interactions.n_users)
        self.problem = local_problem(spec, self.backbone, settings, data.interactions, self.device, mine)
        features = data.features if spec.model.modalities is None else data.features.select(spec.model.modalities)
        self.server = Server(
            data.interactions.n_items,
            features,
            settings,
            self.backbone,
            spec.training,
            spec.seed,
            self.problem.dtype,
            self.device,
        )
        self.engine: Engine
        if execution.engine == "sequential":
            self.engine = SequentialEngine(self.problem)
        else:
            self.engine = BatchedEngine(self.problem, execution)

    def round(self, number: int) -> Uplink:
        """Runs one communication round (counted from 1) and returns its uplink with the seconds by phase."""
        begin = time.perf_counter()
        training = self.spec.training
        cohort = draw_cohort(self.spec.seed, number, self.data.interactions.n_users, training.participation)
        broadcast = self.server.broadcast()
        sent = time.perf_counter()
        cohort = cohort.to(self.device)
        weights = self.problem.client_weights(cohort)
        here = self.problem.histories.slot_of[cohort] >= 0
        uplink = self.engine.local_round(broadcast, cohort[here], weights[here], number)
        self._join(uplink)
        received = time.perf_counter()
        self.server.apply(uplink.sums)
        uplink.seconds["server"] = time.perf_counter() - received + sent - begin
        return uplink

    def _join(self, uplink: Uplink) -> None:
        """Sums an uplink and its accounts over all processes."""
        if self.processes.size == 1:
            return
        begin = time.perf_counter()
        self.processes.add_up(uplink.sums)
        accounts = self.processes.gather((uplink.loss, uplink.clients, uplink.samples))
        uplink.clients = sum(clients for _, clients, _ in accounts)
        uplink.samples = sum(samples for _, _, samples in accounts)
        uplink.loss = sum(loss * clients for loss, clients, _ in accounts) / max(uplink.clients, 1)
        uplink.seconds["uplink"] = uplink.seconds.get("uplink", 0.0) + time.perf_counter() - begin

    def score(self, users: torch.Tensor) -> torch.Tensor:
        """Scores of all items for some clients of this process, `[len(users), n_items]`, with the present state."""
        return self.engine.score(self.server.broadcast(), users)

    def router_weights(self) -> npt.NDArray[np.float64] | None:
        """w_u of every user `[n_users, G]` with the present state; None without a router (Figure 2)."""
        local = self.engine.router_weights(self.server.broadcast())
        if local is None:
            return None
        out = np.zeros((self.data.interactions.n_users, local.shape[1]))
        for clients, weights in self.processes.gather((self.problem.clients().cpu().numpy(), local)):
            out[clients] = weights
        return out

    def snapshot(self) -> Best:
        """A copy of all parameters (no optimiser state)."""
        return Best(self.server.snapshot(), self.engine.snapshot())

    def restore(self, best: Best) -> None:
        """Puts a copy back, for evaluation."""
        self.server.restore(best.server)
        self.engine.restore(best.clients)
