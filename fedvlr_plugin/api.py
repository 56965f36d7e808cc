"""`fedvlr_plugin.run(...)`: one call for one experiment, by row name or with a RecBole model class of your own.

It needs neither `register()` nor RecBole's quick start, so it also works where that cannot be imported (numpy 2, newer
scipy and pandas).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from fedvlr_plugin.centralized.trainable import Trainable
from fedvlr_plugin.config import PROTOCOLS, ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.devices import check_device
from fedvlr_plugin.errors import ConfigError, unknown_name
from fedvlr_plugin.experiment.controls import under_control
from fedvlr_plugin.experiment.profiles import split_settings
from fedvlr_plugin.experiment.result import OnRound, RunResult
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import run as run_spec
from fedvlr_plugin.experiment.run import run_recbole_model
from fedvlr_plugin.files import write_atomic


def run(
    model: str | type = "FedAvg+ours",
    dataset: str | PreparedData = "ml-100k",
    *,
    seed: int = 0,
    protocol: str = "corrected",
    settings: Mapping[str, object] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    on_round: OnRound | None = None,
    control: Literal["none", "shuffled"] = "none",
) -> RunResult:
    """Trains and evaluates one row on one data set.

    Args:
        model: a row (`"FedAvg+ours"`, `"BM3"`, `"LightGCN"`), or a `GeneralRecommender` subclass.
        dataset: a name from the catalogue, or prepared data.
        protocol: `"corrected"` or `"as_released"`.
        settings: fields of `TrainingConfig` and `ModelConfig`, e.g. `{"rounds": 50, "params": {"n_layers": 2}}`.
        data_root: folder of data sets; None = FEDVLR_DATA, then ./data.
        checkpoint: write the trained parameters of a RecBole model there; `load_checkpoint` reads them back.
        on_round: called after every round or epoch.
        control: `"shuffled"` gives every item the features of another item, drawn from the seed.

    Raises:
        UnknownNameError, ConfigError, DataError, DeviceError: each one line, with what to do.

    A row by name, on the small generated data set:

    >>> import fedvlr_plugin
    >>> result = fedvlr_plugin.run("FedAvg+ours", "planted", settings={"rounds": 2, "local_epochs": 1})
    >>> [record.round for record in result.curve]
    [1, 2]
    >>> from fedvlr_plugin.evaluation.metrics import summary
    >>> 0 <= summary(result.test)["ndcg@50"] <= summary(result.test)["hr@50"] <= 100
    True

    A wrong name is answered with the allowed ones:

    >>> fedvlr_plugin.run("FedAvg+our", "planted")
    Traceback (most recent call last):
    fedvlr_plugin.errors.ConfigError: unknown fusion 'our' in row 'FedAvg+our'; allowed: FedAvg, ...FedAvg+ours
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    data = dataset if isinstance(dataset, PreparedData) else prepare(dataset, data_root)
    row = model.__name__ if isinstance(model, type) else parse_row(model).name
    one_round = {"rounds": 1} if isinstance(model, str) and parse_row(row).kind == "one_shot" else {}
    training, shape = split_settings({**one_round, **(settings or {})})
    spec = RunSpec(
        dataset=data.name, row=row, seed=seed, protocol=PROTOCOLS[protocol], training=training, model=shape,
        control=control,
    )  # fmt: skip
    execution = ExecutionConfig(device=device)
    check_device(device)
    if isinstance(model, str) and parse_row(row).kind != "recbole":
        if checkpoint is not None:
            raise ConfigError(f"row '{row}' is no RecBole model, so there is no checkpoint to write; leave it out")
        return run_spec(spec, execution, data=data, on_round=on_round)

    def save(trained: Trainable) -> None:
        if checkpoint is not None:
            save_checkpoint(checkpoint, spec, trained)

    seen = under_control(spec, data)
    found = run_recbole_model(spec, execution, seen, on_round, model if isinstance(model, type) else None, save)
    return replace(found, data_fingerprint=data.fingerprint)


def save_checkpoint(path: Path, spec: RunSpec, trained: Trainable) -> None:
    """Writes tensors and the specification as JSON text, in one step; loads with `weights_only=True`."""
    buffer = io.BytesIO()
    state = {"state_dict": trained.model.state_dict(), "spec": spec.model_dump_json()}
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> tuple[RunSpec, dict[str, torch.Tensor]]:
    """The specification and the state dict of a checkpoint; raises `ConfigError` for another kind of file."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or set(state) != {"state_dict", "spec"}:
        raise ConfigError(
            f"'{path}' is no checkpoint of this package; write one with fedvlr_plugin.run(checkpoint=...)"
        )
    return RunSpec.model_validate_json(state["spec"]), state["state_dict"]
