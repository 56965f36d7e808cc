"""The server's side of the pair: FedML's rules combine the uploads, the core takes the server step.

FedML's defences clip and compare against "the global weights", so while they run `get_model_params` gives zeros: what
they see are differences. What else they must be fed is in `robust`. Needs FedML at import.
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
    """Holds the shared model; one FedML round is one server step.

    Attributes:
        round: the round whose uploads are wanted, from 1. left_out: uploads that did not count, by reason, so far.
        tell: gets one line per round, where it is set.
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
        """The broadcast of the present round."""
        self._begun = self._begun or time.perf_counter()
        out = pack_broadcast(self.server.broadcast(), self.round)
        if self._zeros:
            return OrderedDict((name, torch.zeros_like(value)) for name, value in payload(out).items())
        return out

    def set_model_params(self, model_parameters: Message) -> None:
        """FedML hands back what `on_after_aggregation` gave; the step is already taken, so only the round is checked."""
        if int(model_parameters.get(ROUND, torch.tensor(-1))) != self.round:
            raise ConfigError("the server's weights cannot be set from outside; resume with fedvlr_checkpoint")

    def on_before_aggregation(self, raw_client_model_or_grad_list: Raw) -> tuple[Raw, list[int]]:
        """Leaves out what does not count, then FedML's attacks and defences."""
        admitted, places = self._admitted(raw_client_model_or_grad_list)
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
        return kept, [places[k] for k in which if k < len(places)]

    def aggregate(self, raw_client_model_or_grad_list: Raw) -> Message:
        """The weighted mean, or what a defence of FedML's or of ours makes of it; empty when nobody's upload counts."""
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
        """The server step; returns the next round's broadcast, which FedML sends."""
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
        """Nothing to measure: scores need the clients' private state. The zeros are what FedML's log expects."""
        return 0.0, 0.0, 0.0, 0.0

    def merge(self, raw: Raw, client: int) -> Raw:
        """Many clients' uploads as one of their joint weight (`client` is its name), to hold fewer in memory."""
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
        """Weights and dense uploads that count, with their places in the list."""
        admission = Admission(self.server.broadcast(), self.round)
        out: Raw = []
        places = []
        for place, (_, message) in enumerate(raw):
            good = admission.admit(message, self.left_out)
            if good is not None:
                out.append(good)
                places.append(place)
        self.left_out = +self.left_out
        return out, places

    @contextmanager
    def _against_zero(self) -> Iterator[None]:
        self._zeros = True
        try:
            yield
        finally:
            self._zeros = False


def _check_lingering(args: object) -> None:
    """Some of FedML's switches are per process and never go off: refuses a run that an earlier one would change."""
    for module, kind, asked, name in (
        ("fedml.core.security.fedml_attacker", "FedMLAttacker", "is_model_attack", "enable_attack"),
        ("fedml.core.dp.fedml_differential_privacy", "FedMLDifferentialPrivacy", "is_dp_enabled", "enable_dp"),
    ):
        loaded = sys.modules.get(module)
        if loaded is None or option(args, name):
            continue
        asked_for = getattr(getattr(loaded, kind).get_instance(), asked, None)
        if callable(asked_for) and asked_for():
            raise ConfigError(
                f"an earlier run of this process set {name}, and FedML never unsets it; start a new process"
            )
