"""A federation: server and clients put together, one round at a time (algorithm.md section 2, Algorithm 1).

    broadcast -> local epochs of the cohort -> weighted sum of uploads -> one pull-back -> one server step

Under conditions that must see uploads one by one (privacy, secure sums, robust rules, attacks) a rule makes the sum, see
`aggregation`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.aggregation.factory import make_attack, make_rule
from fedvlr_plugin.aggregation.rule import Cohort, Rule, Transform
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.backbones.base import make_backbone
from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.devices import fixed_order
from fedvlr_plugin.engines.base import Engine, Uplink, local_problem
from fedvlr_plugin.engines.batched import BatchedEngine
from fedvlr_plugin.engines.sequential import SequentialEngine
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.cohort import answers, draw_cohort, draw_poisson
from fedvlr_plugin.federation.distributed import Processes, join_processes, local_device
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.fusion.views import Fusion, make_fusion


class Federation:
    """Trains one row on one data set.

    Args:
        spec: the run.
        backbone: its name, as parsed from the row.
        fusion: its name, as parsed from the row.
        data: split interactions and item features.
        execution: engine, device, block size, memory budget.
        processes: the processes that clients are sharded over; by default those that torchrun announced. `Processes()`
            is one process.

    Attributes:
        server: shared weights and their optimiser.
        engine: the clients.
        rule: makes the sum of uploads; None where the engine's weighted sum is used.
        attack: changes uploads of malicious clients; None without.

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
        processes: Processes | None = None,
    ) -> None:
        execution = execution or ExecutionConfig()
        self.spec, self.data = spec, data
        self.device = local_device(torch.device(execution.device))
        self.processes = processes or join_processes(self.device)
        settings = make_fusion(fusion, spec.model)
        self.backbone = make_backbone(backbone, settings, spec.model)
        users = self.processes.clients_of_rank(data.interactions.train_sizes)
        self.problem = local_problem(spec, self.backbone, settings, data.interactions, self.device, users)
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
        self.rule: Rule | None = None
        self.attack: Transform | None = None
        if spec.conditions.per_client:
            if self.processes.size > 1:
                raise ConfigError("privacy, secure, robust and attack run in one process only; leave torchrun out")
            n_users = data.interactions.n_users
            self.rule = make_rule(spec, n_users)
            counts = np.bincount(data.interactions.train_items, minlength=data.interactions.n_items)
            self.attack = make_attack(spec, n_users, torch.from_numpy(counts).to(self.device))

    def round(self, number: int) -> Uplink:
        """Run one communication round, counted from 1.

        Returns:
            The sum of uploads, with the seconds by phase. Uploads that do not count are in `left_out`; when none counts
            the shared model stays as it is.
        """
        with fixed_order(self.device):
            return self._round(number)

    def _round(self, number: int) -> Uplink:
        begin = time.perf_counter()
        cohort = self._cohort(number)
        broadcast = self.server.broadcast()
        sent = time.perf_counter()
        answered = answers(self.spec.conditions.faults, self.spec.seed, number, cohort)
        if self.rule is None:
            uplink = self._train(broadcast, answered.in_time, number)
            self._join(uplink)
            sums = uplink.sums if uplink.clients else None
        else:
            uplink = self._train_client_by_client(self.rule, broadcast, answered.in_time, number)
            sums = self.rule.total()
            uplink.accounts |= self.rule.counts()
        if len(answered.late):
            self._train(broadcast, answered.late, number)  # they train, but their uploads arrive too late
        uplink.left_out |= answered.counts()
        received = time.perf_counter()
        if sums is not None:
            self.server.apply(sums)
        uplink.seconds["server"] = time.perf_counter() - received + sent - begin
        return uplink

    def _cohort(self, number: int) -> torch.Tensor:
        """User ids of a round's cohort, ascending; by Poisson sampling under differential privacy."""
        privacy, share = self.spec.conditions.privacy, self.spec.training.participation
        n_users = self.data.interactions.n_users
        if privacy is not None and privacy.mechanism == "gaussian" and share < 1.0:
            return draw_poisson(self.spec.seed, number, n_users, share).to(self.device)
        return draw_cohort(self.spec.seed, number, n_users, share).to(self.device)

    def _train(self, broadcast: Broadcast, cohort: torch.Tensor, number: int) -> Uplink:
        """Train the cohort's clients of this process, with the engine's weighted sum."""
        weights = self.problem.client_weights(cohort)
        here = self.problem.histories.slot_of[cohort] >= 0
        return self.engine.local_round(broadcast, cohort[here], weights[here], number)

    def _train_client_by_client(self, rule: Rule, broadcast: Broadcast, cohort: torch.Tensor, number: int) -> Uplink:
        """Train the cohort; uploads go through the attack and the test of finite numbers to the rule, block after block."""
        sizes = self.problem.histories.weights[cohort]
        described = Cohort(number, cohort, sizes, self.data.interactions.n_users, self.problem.backbone.client_weight)
        rule.begin(described, UploadShape(broadcast.named()), self.problem.dtype, self.device)
        refused = 0

        def collect(uploads: ClientUploads) -> None:
            nonlocal refused
            if self.attack is not None:
                uploads = self.attack(uploads, described)
            good = uploads.finite()
            if not bool(good.all()):
                refused += int((~good).sum())
                uploads = uploads.only(good)
            if len(uploads.clients):
                rule.take(uploads)

        unweighted = torch.ones(len(cohort), dtype=self.problem.dtype, device=self.device)
        uplink = self.engine.local_round(broadcast, cohort, unweighted, number, collect)
        if refused:
            uplink.left_out["not finite"] = uplink.left_out.get("not finite", 0) + refused
        return uplink

    def _join(self, uplink: Uplink) -> None:
        """Sum an uplink and its accounts over all processes."""
        if self.processes.size == 1:
            return
        begin = time.perf_counter()
        self.processes.add_up(uplink.sums)
        accounts = self.processes.gather((uplink.loss, uplink.clients, uplink.samples, uplink.left_out))
        uplink.clients = sum(clients for _, clients, _, _ in accounts)
        uplink.samples = sum(samples for _, _, samples, _ in accounts)
        uplink.loss = sum(loss * clients for loss, clients, _, _ in accounts) / max(uplink.clients, 1)
        uplink.left_out = dict(sum((Counter(left_out) for *_, left_out in accounts), Counter()))
        uplink.seconds["uplink"] = uplink.seconds.get("uplink", 0.0) + time.perf_counter() - begin

    def score(self, users: torch.Tensor) -> torch.Tensor:
        """Score all items for some clients of this process with the present state, `[len(users), n_items]`."""
        with fixed_order(self.device):
            return self.engine.score(self.server.broadcast(), users)

    def router_weights(self) -> npt.NDArray[np.float64] | None:
        """w_u of every user `[n_users, G]` with the present state; None without a router (Figure 2)."""
        with fixed_order(self.device):
            local = self.engine.router_weights(self.server.broadcast())
        if local is None:
            return None
        everybody = np.zeros((self.data.interactions.n_users, local.shape[1]))
        for clients, weights in self.processes.gather((self.problem.clients().cpu().numpy(), local)):
            everybody[clients] = weights
        return everybody

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        """A copy of all parameters, shared and private, of this process, as tensors by name.

        Args:
            moments: whether everything else that the next round depends on is in it too: the optimisers' moments and
                the state of the aggregation rule.

        Raises:
            ConfigError: a state with moments is asked for and there are several processes.
        """
        if moments and self.processes.size > 1:
            raise ConfigError("checkpoints are written by one process; leave torchrun or checkpoints out")
        parts = {"server": self.server.state(moments), "clients": self.engine.state(moments)}
        if moments and self.rule is not None:
            parts["rule"] = self.rule.state()
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def load(self, state: Mapping[str, torch.Tensor], moments: bool) -> None:
        """Put a state in force.

        Args:
            state: what `state(moments)` gave, now or in an earlier version.
            moments: whether to go on from it, the rule's accounts included. Without them optimisers start anew and the
                rule stays as it is: for evaluation.

        Raises:
            ConfigError: the state is of other clients or of another privacy mechanism, or there are several processes
                to go on.
            KeyError, RuntimeError: tensors are missing or misshapen.
        """
        if moments and self.processes.size > 1:
            raise ConfigError("checkpoints are read by one process; leave torchrun or checkpoints out")
        self.server.load(_part(state, "server"))
        self.engine.load(_part(state, "clients"))
        if moments and self.rule is not None:
            self.rule.load_state(_part(state, "rule"))


def _part(state: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
