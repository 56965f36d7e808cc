"""What a RecBole configuration asks of FedVLR: every key that the user gave is heard, or refused by name.

Only what the user gave counts (`config_dict`, configuration files, RecBole's command line): RecBole's own defaults, 300
epochs among them, are for its models. A key of RecBole that means the same as one of ours is taken over (`SAME`);
one that means nothing here is refused unless it has its neutral value (`NEUTRAL`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import TypeVar

from pydantic import BaseModel

from fedvlr_plugin.config import (
    PROTOCOLS,
    ExecutionConfig,
    ModelConfig,
    Protocol,
    RunSpec,
    TrainingConfig,
    build_config,
)
from fedvlr_plugin.data.recbole.config import OWN_KEYS, given_keys, known_keys
from fedvlr_plugin.errors import ConfigError, did_you_mean
from fedvlr_plugin.experiment.rows import parse_row

from recbole.config import Config  # isort: skip

DEFAULT_ROW = "FedAvg+ours"
_Part = TypeVar("_Part", bound=BaseModel)


@dataclass(frozen=True)
class Same:
    """A key of RecBole's with the meaning of one of ours.

    Attributes:
        ours: the name here.
        part: the settings that it belongs to.
    """

    ours: str
    part: type[BaseModel]


SAME: Mapping[str, Same] = {
    "epochs": Same("rounds", TrainingConfig),
    "train_batch_size": Same("batch_size", TrainingConfig),
    "learning_rate": Same("client_lr", TrainingConfig),
    "learner": Same("client_optimizer", TrainingConfig),
    "stopping_step": Same("patience", TrainingConfig),
    "eval_step": Same("eval_every", TrainingConfig),
    "embedding_size": Same("dim", ModelConfig),
    "train_neg_sample_args": Same("negatives", Protocol),
}
NEUTRAL: Mapping[str, tuple[tuple[object, ...], str]] = {
    "weight_decay": ((None, 0), "clients train without weight decay; leave it out"),
    "clip_grad_norm": ((None, {}), "clients do not clip gradients; leave it out"),
    "enable_amp": ((False, None), "clients train in float32; leave it out"),
    "enable_scaler": ((False, None), "clients train in float32; leave it out"),
    "require_pow": ((False, None), "the losses have no embedding norm; leave it out"),
    "transform": ((None,), "clients draw their own samples; leave it out"),
    "shuffle": ((True, None), "clients always shuffle their samples; leave it out"),
    "repeatable": ((False, None), "items of the history are never recommended; set repeatable: False"),
    "neg_sampling": ((None,), "it is RecBole's former name; set negatives, or train_neg_sample_args"),
    "training_neg_sample_num": ((None,), "it is RecBole's former name; set negatives, or train_neg_sample_args"),
}


def spec_from_config(config: Config, dataset: str) -> tuple[RunSpec, ExecutionConfig]:
    """Build the run that a RecBole configuration describes.

    Args:
        config: RecBole's Config or ours.
        dataset: name of the data set.

    Raises:
        ConfigError: a key that is not known, that means nothing here, that has a wrong value, or that is given under
            RecBole's name and ours with different values.
    """
    refuse_unknown(config, "FedVLR", known_keys(config) | OWN_KEYS | set(SAME) | set(NEUTRAL))
    given = given_keys(config)
    _refuse_without_meaning(given)
    _refuse_sampled_evaluation(config)
    values = dict(given) | _taken_over(given)
    named = values.get("protocol") or "corrected"
    if named not in PROTOCOLS:
        raise ConfigError(f"protocol '{named}' is not known; allowed: {', '.join(PROTOCOLS)}")
    protocol = build_config(Protocol, PROTOCOLS[str(named)].model_dump() | _fields(values, Protocol, skip=("name",)))
    training = build_config(TrainingConfig, _fields(values, TrainingConfig))
    model = build_config(ModelConfig, _fields(values, ModelConfig))
    execution = build_config(ExecutionConfig, _fields(values, ExecutionConfig) | {"device": str(config["device"])})
    row = parse_row(config["row"] if "row" in config else DEFAULT_ROW)
    if row.kind != "federated":
        raise ConfigError(f"row '{row.name}' is not federated; name a backbone with or without +MLP, +VBPR or +ours")
    seed = config["seed"]
    spec = RunSpec(dataset=dataset, row=row.name, seed=seed, protocol=protocol, training=training, model=model)
    return spec, execution


def refuse_unknown(config: Config, model: str, known: set[str] | frozenset[str]) -> None:
    """Refuse keys that nobody reads, with the nearest name.

    A key that only the command line has may be the program's own: it is named in the log instead.

    Raises:
        ConfigError: a key of `config_dict` or of a configuration file is not in `known`.
    """
    line: Mapping[str, object] = config.cmd_config_dict
    for key in given_keys(config):
        if key in known:
            continue
        message = f"unknown configuration key '{key}' for model {model}.{did_you_mean(str(key), sorted(known))}"
        if key not in line or key in config.variable_config_dict or key in config.file_config_dict:
            raise ConfigError(
                f"{message} Keys are RecBole's, this package's and the model's own; see recbole_configs/."
            )
        getLogger().warning(f"{message} It is of the command line, and is left alone.")


def _taken_over(given: Mapping[str, object]) -> dict[str, object]:
    """Values under our names of the keys that the user gave under RecBole's."""
    taken: dict[str, object] = {}
    for theirs, same in SAME.items():
        if theirs not in given:
            continue
        raw = _sample_num(given[theirs]) if theirs == "train_neg_sample_args" else given[theirs]
        raw = raw.lower() if theirs == "learner" and isinstance(raw, str) else raw
        value = _checked(same, theirs, raw)
        if same.ours in given and _checked(same, same.ours, given[same.ours]) != value:
            left_out = " (RecBole takes sample_num 1 where it is left out)" if same.ours == "negatives" else ""
            raise ConfigError(
                f"{theirs} asks for {value!r}{left_out} and {same.ours} for {given[same.ours]!r}, but they are one setting "
                "of FedVLR; give one of the two"
            )
        taken[same.ours] = value
    if taken:
        pairs = ", ".join(
            f"{theirs} as {same.ours}={taken[same.ours]}" for theirs, same in SAME.items() if theirs in given
        )
        getLogger().info(f"FedVLR takes {pairs}")
    return taken


def _checked(same: Same, name: str, value: object) -> object:
    """The value as its settings keep it; the error names the key that the user wrote."""
    try:
        return getattr(build_config(same.part, {same.ours: value}), same.ours)
    except ConfigError as error:
        complaint = str(error).removeprefix(f"{same.part.__name__}: ").removeprefix(f"{same.ours}: ")
        raise ConfigError(f"{name} is {same.ours} of FedVLR: {complaint}") from None


def _sample_num(args: object) -> object:
    """Number of negatives a positive; the sampler of the clients is uniform."""
    way_out = "give {distribution: uniform, sample_num: N}, or negatives: N"
    if not isinstance(args, Mapping):
        raise ConfigError(f"train_neg_sample_args is {args!r}, but clients need negatives; {way_out}")
    if (distribution := args.get("distribution", "uniform")) != "uniform":
        raise ConfigError(
            f"train_neg_sample_args: distribution is {distribution!r}, but clients draw negatives uniformly; {way_out}"
        )
    if args.get("dynamic"):
        raise ConfigError(f"train_neg_sample_args: dynamic negatives are not drawn by clients; {way_out}")
    return args.get("sample_num", 1)


def _refuse_without_meaning(given: Mapping[str, object]) -> None:
    for key, (neutral, instead) in NEUTRAL.items():
        if key in given and given[key] not in neutral:
            raise ConfigError(f"{key} is {given[key]!r}, which FedVLR cannot do: {instead}")


def _refuse_sampled_evaluation(config: Config) -> None:
    for phase, mode in config["eval_args"]["mode"].items():
        if mode != "full":
            raise ConfigError(
                f"eval_args: mode of {phase} is '{mode}', but FedVLR chooses its round by ranks among all items; set mode: "
                "full (VBPR, BM3, MGCN and PGL take sampled candidates)"
            )


def _fields(values: Mapping[str, object], part: type[_Part], skip: tuple[str, ...] = ()) -> dict[str, object]:
    """What was given of a part's fields."""
    return {key: values[key] for key in part.model_fields if key in values and key not in skip}
