"""The server side of the FedML pair: FedML's rules combine the uploads, this package takes the server step.

FedML's defences clip and compare relative to "the global weights". Uploads are differences, so `get_model_params`
returns zeros while a defence runs. The module `defenses` describes what else they need. This module imports FedML.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fedml.core import ServerAggregator

from fedvlr_plugin.aggregation.uploads import UploadShape
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml.defenses import (
    Raw,
    batch_size,
    combined,
    defence_of,
    distinct_weights,
    order_statistics,
    own_rule,
    too_few_for_krum,
)
from fedvlr_plugin.integrations.fedml.messages import ROUND, Admission, Message, pack_broadcast, pack_upload, payload
from fedvlr_plugin.integrations.fedml.options import check_options, is_cross_silo, option, text
from fedvlr_plugin.integrations.fedml.state_files import load_server, save_server
from fedvlr_plugin.integrations.fedml.task import task_of


class FedVLRServerAggregator(ServerAggregator):
    """The shared model of a run; one FedML round is one server step.

    Args:
        model: not used; FedML needs one.
        args: FedML's options.

    Attributes:
        round: the open round, counted from 1.
        left_out: number of uploads that were not used so far, by reason.
        tell: called with one line of text after each round; None for no calls.

    Raises:
        ConfigError: an option that FedML ignores or that does not fit, or too few clients for Krum.
    """

    def __init__(self, model: torch.nn.Module, args: object) -> None:
        check_options(args)
        super().__init__(model, args)
        _check_lingering(args)
        self.task = task_of(args)
        self.device = torch.device(text(args, "fedvlr_device", "cpu"))
        self.server = self.task.server(self.device)
        self.round = 1
        self.left_out: Counter[str] = Counter()
        self.tell: Callable[[str], None] | None = None
        self._counted, self._begun = 0, 0.0
        self._zeros = False
        self.defence, self.rule = defence_of(args), own_rule(args)
        self.looks_at_each = bool(self.defence or self.rule or option(args, "enable_attack"))
        called = len(self.task.clients) if is_cross_silo(args) else len(self.task.cohort(self.round))
        if too_few_for_krum(args, called):
            raise ConfigError(
                f"{self.defence}: FedML needs 2 byzantine_client_num + 2 <= clients - krum_param_m, and {called} clients "
                "are called in a round; lower byzantine_client_num or krum_param_m"
            )
        folder = option(args, "fedvlr_checkpoint")
        self.checkpoint = None if folder is None else Path(str(folder))
        if self.checkpoint is not None:
            self.round, left_out = load_server(self.checkpoint, self.server, self.task.run)
            self.left_out = Counter(left_out)

    def get_model_params(self) -> Message:
        """Return the broadcast of the open round, or zeros while a defence of FedML runs."""
        self._begun = self._begun or time.perf_counter()
        out = pack_broadcast(self.server.broadcast(), self.round)
        if self._zeros:
            return OrderedDict((name, torch.zeros_like(value)) for name, value in payload(out).items())
        return out

    def set_model_params(self, model_parameters: Message) -> None:
        """Check the round of a message: FedML returns that of `on_after_aggregation`, whose step is already taken.

        Raises:
            ConfigError: the message is of another round.
        """
        if int(model_parameters.get(ROUND, torch.tensor(-1))) != self.round:
            raise ConfigError("the server's weights cannot be set from outside; resume with fedvlr_checkpoint")

    def on_before_aggregation(self, raw_client_model_or_grad_list: Raw) -> tuple[Raw, list[int]]:
        """Leave out unusable uploads, and apply FedML's attacks and defences.

        Args:
            raw_client_model_or_grad_list: weights and uploads.

        Returns:
            Weights and uploads that remain, and their positions in the list.
        """
        admitted, positions = self._admitted(raw_client_model_or_grad_list)
        self._counted = len(admitted)
        if admitted and too_few_for_krum(self.args, len(admitted)):
            self.left_out[f"too few for {self.defence}"] += len(admitted)
            admitted = []
        if not admitted:
            return [], []
        if self.defence == "trimmed_mean":
            admitted = order_statistics(admitted)
        with self._against_zero():
            kept, which = super().on_before_aggregation(admitted)
        if self.defence == "trimmed_mean":
            kept = [(1.0, upload) for _, upload in kept]
        return kept, [positions[k] for k in which if k < len(positions)]

    def aggregate(self, raw_client_model_or_grad_list: Raw) -> Message:
        """Combine uploads by the weighted mean, by a defence of FedML, or by a robust rule; empty without uploads."""
        if not raw_client_model_or_grad_list:
            return OrderedDict()
        if self.rule is not None:
            shape = UploadShape(self.server.broadcast().named())
            return combined(self.rule, raw_client_model_or_grad_list, shape, self.round)
        if self.defence in ("rfa", "geo_median"):
            raw_client_model_or_grad_list = distinct_weights(raw_client_model_or_grad_list, batch_size(self.args))
        with self._against_zero():
            out: Message = super().aggregate(raw_client_model_or_grad_list)
        return out

    def on_after_aggregation(self, aggregated_model_or_grad: Message) -> Message:
        """Take the server step with the combined uploads, and return the next round's broadcast, which FedML sends."""
        if aggregated_model_or_grad:
            with self._against_zero():
                total = super().on_after_aggregation(aggregated_model_or_grad)
            like = self.server.broadcast().named()
            self.server.apply({n: v.to(self.device, like[n].dtype) for n, v in total.items()})
        else:
            self.left_out["rounds without any upload"] += 1
        self.round += 1
        if self.checkpoint is not None:
            run = self.task.run
            save_server(self.checkpoint, self.server, run, self.round, dict(self.left_out))
        if self.tell is not None:
            seconds, self._begun = time.perf_counter() - self._begun, time.perf_counter()
            left_out = f", left out {dict(self.left_out)}" if self.left_out else ""
            self.tell(f"round {self.round - 1}: {self._counted} uploads, {seconds:.1f} s{left_out}")
        return self.get_model_params()

    def test(self, test_data: object, device: object, args: object) -> tuple[float, float, float, float]:
        """Return zeros for FedML's log; metrics need the clients' private state, which the server does not have."""
        return 0.0, 0.0, 0.0, 0.0

    def merge(self, raw: Raw, client: int) -> Raw:
        """Combine uploads of many clients into one with their total weight, to save memory.

        Args:
            raw: weights and uploads.
            client: number of the combined upload.
        """
        admitted, _ = self._admitted(raw)
        if not admitted:
            return []
        total = sum(weight for weight, _ in admitted)
        mean = {name: torch.zeros_like(value) for name, value in admitted[0][1].items()}
        for weight, upload in admitted:
            for name, value in upload.items():
                mean[name] += (weight / total) * value
        return [(total, pack_upload(mean, self.round, client, total, 0, False))]

    def _admitted(self, raw: Raw) -> tuple[Raw, list[int]]:
        """Return weights and dense uploads that can be used, and their positions in the list."""
        admission = Admission(self.server.broadcast(), self.round)
        out: Raw = []
        positions = []
        for position, (_, message) in enumerate(raw):
            weighted = admission.admit(message, self.left_out)
            if weighted is not None:
                out.append(weighted)
                positions.append(position)
        self.left_out = +self.left_out
        return out, positions

    @contextmanager
    def _against_zero(self) -> Iterator[None]:
        self._zeros = True
        try:
            yield
        finally:
            self._zeros = False


def _check_lingering(args: object) -> None:
    """Refuse a run that an earlier one in this process would change: some of FedML's switches cannot be unset."""
    for module, kind, asked, name in (
        ("fedml.core.security.fedml_attacker", "FedMLAttacker", "is_model_attack", "enable_attack"),
        ("fedml.core.dp.fedml_differential_privacy", "FedMLDifferentialPrivacy", "is_dp_enabled", "enable_dp"),
    ):
        loaded = sys.modules.get(module)
        if loaded is None or option(args, name):
            continue
        is_set = getattr(getattr(loaded, kind).get_instance(), asked, None)
        if callable(is_set) and is_set():
            raise ConfigError(
                f"an earlier run of this process set {name}, and FedML never unsets it; start a new process"
            )
