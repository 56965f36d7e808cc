"""`run(spec)`: the one place where an experiment happens.

Table runners, studies, the command line, the RecBole trainer's tests and the report all come through here. A run
trains a row on a data set, selects the round by validation NDCG@50, and reads the test split once, at the end,
with the selected parameters. Four ways stand side by side: a floor, a closed form (`closed_forms`), a federated row,
a RecBole model. A run under a control sees other data (`controls`), and its result names the data it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.backbones.base import make_backbone
from fedvlr_plugin.centralized.closed_form import check_memory
from fedvlr_plugin.config import Conditions, ExecutionConfig, RunSpec, build_config
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.devices import check_device, fixed_order
from fedvlr_plugin.engines.base import DTYPES
from fedvlr_plugin.engines.private_items import check_budget
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.floors import rank_floor
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Phase, Ranks, Scorer
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.closed_forms import Solved, rank_solved, run_closed_form, run_one_shot
from fedvlr_plugin.experiment.controls import under_control
from fedvlr_plugin.experiment.result import Meter, OnRound, RunResult
from fedvlr_plugin.experiment.rows import Row, parse_row
from fedvlr_plugin.federation.checkpoint import Checkpoints
from fedvlr_plugin.federation.distributed import Processes
from fedvlr_plugin.federation.one_shot import OneShotParams, check_conditions
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import fit
from fedvlr_plugin.fusion.views import make_fusion

if TYPE_CHECKING:
    from fedvlr_plugin.centralized.trainable import Trainable

OUTPUTS = ("router_weights",)
Outputs = Mapping[str, npt.NDArray[np.float64]]


def run(
    spec: RunSpec,
    execution: ExecutionConfig | None = None,
    *,
    data: PreparedData,
    on_round: OnRound | None = None,
    outputs: tuple[str, ...] = (),
    checkpoint: Path | None = None,
) -> RunResult:
    """Run one experiment.

    Args:
        spec: what to run.
        execution: how.
        data: the prepared data set; `spec.dataset` is its name.
        on_round: called after every round (or epoch).
        outputs: private results asked for by name: `"router_weights"`, `[n_users, G]`.
        checkpoint: a file to go on from, written each `execution.checkpoint_every` rounds (10 where that is None) of a
            federated row. It holds private state of all clients. It stays when the run is finished: remove it then.

    Raises:
        ConfigError, UnknownNameError: the row, its parameters or an output are not known; conditions or checkpoints
            for a row that is not federated.
        ResultsError: the checkpoint is damaged or cannot be written.
        DeviceError: the device is not there.
    """
    execution = execution or ExecutionConfig()
    row = parse_row(spec.row)
    check_device(execution.device)
    for name in outputs:
        if name not in OUTPUTS:
            raise ConfigError(f"unknown output '{name}'; allowed: {', '.join(OUTPUTS)}")
    if row.kind not in ("federated", "one_shot") and spec.conditions != Conditions():
        raise ConfigError(f"row '{row.name}' is not federated: it takes no conditions (privacy, faults, ...)")
    if row.kind != "federated" and checkpoint is not None:
        raise ConfigError(f"row '{row.name}' is not trained in federated rounds: it takes no checkpoint")
    seen = under_control(spec, data)
    checkpoints = None if checkpoint is None else Checkpoints(checkpoint, execution.checkpoint_every or 10)
    if row.kind == "floor":
        result = _run_floor(row, spec, execution, seen)
    elif row.kind == "closed_form":
        result = run_closed_form(row, spec, execution, seen)
    elif row.kind == "one_shot":
        result = run_one_shot(row, spec, execution, seen, on_round)
    elif row.kind == "recbole":
        result = run_recbole_model(spec, execution, seen, on_round)
    else:
        result = _run_federated(row, spec, execution, seen, on_round, outputs, checkpoints)
    return replace(result, data_fingerprint=data.fingerprint)


def check_spec(spec: RunSpec, execution: ExecutionConfig, n_items: int) -> None:
    """Everything about a run that can be refused before its data is touched, for runners to call on all their runs.

    Raises:
        ConfigError, UnknownNameError: unknown row, fusion that the backbone does not support, unknown or repeated
            views, a width that does not divide, wrong parameters, a memory budget too small for one client.
    """
    row = parse_row(spec.row)
    if row.kind == "one_shot":
        params: dict[str, object] = dict(spec.model.params)
        build_config(OneShotParams, params)
        check_conditions(spec)
    if row.base == "EASE" or row.kind == "one_shot":
        check_memory(row.name, n_items, execution.memory_budget)
    if row.kind == "one_shot":
        return
    if row.backbone is None or row.fusion is None:
        if spec.conditions != Conditions():
            raise ConfigError(f"row '{row.name}' is not federated: it takes no conditions (privacy, faults, ...)")
        return
    attack = spec.conditions.attack
    if attack is not None and attack.item is not None and attack.item >= n_items:
        raise ConfigError(f"item to promote must be below {n_items}, the number of items; got {attack.item}")
    fusion = make_fusion(row.fusion, spec.model)
    backbone = make_backbone(row.backbone, fusion, spec.model)
    if backbone.own_rows != "none" and execution.engine == "batched":
        copies = 3 if spec.training.client_optimizer == "adam" else 1
        check_budget(execution.memory_budget, n_items, copies * fusion.dim, DTYPES[spec.dtype].itemsize)


def _run_floor(row: Row, spec: RunSpec, execution: ExecutionConfig, data: PreparedData) -> RunResult:
    meter = Meter(torch.device(execution.device))
    mask = spec.protocol.mask_validation_at_test
    valid = rank_floor(row.name, data.interactions, "valid", mask_validation=mask, features=data.features)
    test = rank_floor(row.name, data.interactions, "test", mask_validation=mask, features=data.features)
    return _result(spec, execution, data, 0, (), valid, test, meter, {})


def _run_federated(
    row: Row,
    spec: RunSpec,
    execution: ExecutionConfig,
    data: PreparedData,
    on_round: OnRound | None,
    outputs: tuple[str, ...],
    checkpoints: Checkpoints | None,
) -> RunResult:
    device = torch.device(execution.device)
    meter = Meter(device)
    federation = build_federation(row, spec, execution, data)

    def validate() -> dict[str, float]:
        return summary(rank_federation(federation, "valid"))

    def rank(scorer: Scorer, phase: Phase) -> Ranks:
        return rank_federation(federation, phase, spec.protocol.mask_validation_at_test, scorer)

    fitted = fit(federation, validate, on_round, checkpoints)
    valid, test, chosen = rank_solved(row, Solved(federation.score, {}), data.interactions, rank)
    kept: dict[str, npt.NDArray[np.float64]] = {}
    if "router_weights" in outputs:
        weights = federation.router_weights()
        if weights is None:
            raise ConfigError(f"row '{row.name}' has no router, so there are no router weights; use a +ours row")
        kept["router_weights"] = weights
    best, curve, updates, samples = fitted.best_round, fitted.records, fitted.client_updates, fitted.samples
    result = _result(spec, execution, data, best, curve, valid, test, meter, kept, updates, samples)
    return replace(result, chosen=chosen)


def build_federation(
    row: Row, spec: RunSpec, execution: ExecutionConfig, data: PreparedData, processes: Processes | None = None
) -> Federation:
    """The federation of a federated row, untrained; `processes` as in `Federation`."""
    if row.backbone is None or row.fusion is None:
        raise ConfigError(f"row '{row.name}' is not federated")
    return Federation(spec, row.backbone, row.fusion, data, execution, processes)


def _result(
    spec: RunSpec,
    execution: ExecutionConfig,
    data: PreparedData,
    best_round: int,
    curve: tuple[RoundRecord, ...],
    valid: Ranks,
    test: Ranks,
    meter: Meter,
    outputs: Outputs,
    client_updates: int = 0,
    samples: int = 0,
) -> RunResult:
    return RunResult(
        spec=spec,
        execution=execution,
        data_name=data.name,
        interactions_fingerprint=data.interactions.fingerprint,
        data_fingerprint=data.fingerprint,
        best_round=best_round,
        curve=curve,
        valid=valid,
        test=test,
        resources=meter.read(client_updates, samples),
        outputs=outputs,
    )


def run_recbole_model(
    spec: RunSpec,
    execution: ExecutionConfig,
    data: PreparedData,
    on_round: OnRound | None = None,
    model_class: type | None = None,
    on_finished: Callable[[Trainable], None] | None = None,
) -> RunResult:
    """Train and evaluate the row `spec.row`.

    Args:
        model_class: a `GeneralRecommender` subclass to use instead of looking the row's name up.
        on_finished: called with the trained model, e.g. to save it.

    Raises:
        UnknownNameError: no such model. ConfigError: parameters, or float64 (RecBole's models are float32).
    """
    from fedvlr_plugin.centralized.model_registry import find_model
    from fedvlr_plugin.centralized.trainable import Trainable
    from fedvlr_plugin.centralized.training import Plan, seeded

    if spec.dtype != "float32":
        raise ConfigError(f"row '{spec.row}' is a RecBole model, which computes in float32; got dtype {spec.dtype}")
    found = model_class or find_model(spec.row)
    device = torch.device(execution.device)
    meter = Meter(device)
    curve: list[RoundRecord] = []

    def keep(record: RoundRecord) -> None:
        curve.append(record)
        if on_round is not None:
            on_round(record)

    training = spec.training
    with seeded(spec.seed, device), fixed_order(device):
        params: dict[str, object] = dict(spec.model.params)
        trained = Trainable(found, data, spec.protocol, params, execution.device, spec.model.dim)
        plan = Plan(training.rounds, training.patience, training.eval_every)
        best = trained.fit(plan, np.random.default_rng(spec.seed), keep)
        valid, test = trained.rank("valid"), trained.rank("test")
    if on_finished is not None:
        on_finished(trained)
    return RunResult(
        spec=spec,
        execution=execution,
        data_name=data.name,
        interactions_fingerprint=data.interactions.fingerprint,
        data_fingerprint=data.fingerprint,
        best_round=best,
        curve=tuple(curve),
        valid=valid,
        test=test,
        resources=meter.read(samples=sum(record.samples for record in curve)),
    )
