"""Profiles: how much to spend on a table, and from that the specification of every run in it.

A profile turns (data set, row, seed, protocol) into a `RunSpec`; its numbers are in `profile_values`. Imports
`config`, `rows` and `profile_values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedvlr_plugin.benchmark.profile_values import PAPER, PAPER_SEARCH, QUICK, SMOKE, Rule
from fedvlr_plugin.benchmark.rows import FLOORS, parse_row
from fedvlr_plugin.config import PROTOCOLS, ModelConfig, RunSpec, TrainingConfig, build_config
from fedvlr_plugin.errors import ConfigError, did_you_mean, unknown_name


@dataclass(frozen=True)
class Profile:
    """A budget.

    Attributes:
        name, purpose: as shown to the user.
        seeds: runs per cell unless the user says otherwise.
        datasets: used when the user names none; None = all found under the data root, and ml-100k.
        rules: settings by data set and row.
        search: how each cell is searched; empty = it is not.
    """

    name: str
    purpose: str
    seeds: int
    datasets: tuple[str, ...] | None
    rules: tuple[Rule, ...]
    search: tuple[Rule, ...] = ()


PROFILES: Mapping[str, Profile] = {
    "smoke": Profile("smoke", "a minute on generated data: does everything run?", 1, ("planted",), SMOKE),
    "quick": Profile("quick", "a few minutes on ml-100k: what does the table look like?", 2, None, QUICK),
    "paper": Profile(
        "paper", "a search and several seeds per cell, for numbers to quote", 5, None, PAPER, PAPER_SEARCH
    ),
}


def get_profile(name: str) -> Profile:
    """The profile called `name`; raises `UnknownNameError` with the nearest name."""
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return PROFILES[name]


def spec_for(
    profile: Profile,
    dataset: str,
    row: str,
    seed: int,
    protocol: str = "corrected",
    overrides: Mapping[str, object] | None = None,
) -> RunSpec:
    """The specification of one run.

    A floor has no seed and no settings, so that one stored run serves every profile. `overrides` are settings that
    the user gave, applied last.

    Raises:
        ConfigError, UnknownNameError: an unknown protocol or setting, or a value out of its range.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    parsed = parse_row(row)
    settings = merge(profile.rules, dataset, parsed.name) | dict(overrides or {})
    training, model = split_settings(settings)
    if parsed.kind == "floor":
        return RunSpec(dataset=dataset, row=parsed.name, seed=0, protocol=PROTOCOLS[protocol])
    return RunSpec(
        dataset=dataset, row=parsed.name, seed=seed, protocol=PROTOCOLS[protocol], training=training, model=model
    )


def specs_for(
    profile: Profile,
    datasets: Iterable[str],
    rows: Iterable[str],
    seeds: int,
    protocol: str = "corrected",
    overrides: Mapping[str, object] | None = None,
) -> list[RunSpec]:
    """All runs of a table, seed by seed, so that an interrupted table has every row before any has two seeds."""
    if seeds < 1:
        raise ConfigError(f"the number of seeds must be at least 1, got {seeds}")
    datasets, rows = list(datasets), list(rows)
    return [
        spec_for(profile, dataset, row, seed, protocol, overrides)
        for seed in range(seeds)
        for dataset in datasets
        for row in rows
        if seed == 0 or parse_row(row).name not in FLOORS
    ]


def spec_with(spec: RunSpec, settings: Mapping[str, object]) -> RunSpec:
    """A specification with some settings changed; `params` are merged into the row's own.

    Raises `ConfigError` for an unknown setting or a value out of its range.
    """
    split_settings(settings)  # complains about names first
    extra = settings.get("params")
    params = spec.model.params | (dict(extra) if isinstance(extra, Mapping) else {})
    training = {k: v for k, v in settings.items() if k in TrainingConfig.model_fields}
    model = {k: v for k, v in settings.items() if k in ModelConfig.model_fields} | {"params": params}
    return spec.model_copy(
        update={
            "training": build_config(TrainingConfig, spec.training.model_dump() | training),
            "model": build_config(ModelConfig, spec.model.model_dump() | model),
        }
    )


def merge(rules: Iterable[Rule], dataset: str, row: str) -> dict[str, object]:
    """Settings of all rules that match, later over earlier; `params` are merged key by key."""
    settings: dict[str, object] = {}
    params: dict[str, object] = {}
    for dataset_pattern, row_pattern, values in rules:
        if fnmatchcase(dataset, dataset_pattern) and fnmatchcase(row, row_pattern):
            extra = values.get("params")
            if isinstance(extra, Mapping):
                params |= extra
            settings |= {key: value for key, value in values.items() if key != "params"}
    return settings | {"params": params} if params else settings


def split_settings(settings: Mapping[str, object]) -> tuple[TrainingConfig, ModelConfig]:
    """Sorts settings into the two parts of a specification; raises `ConfigError` for an unknown or bad one."""
    known = [*TrainingConfig.model_fields, *ModelConfig.model_fields]
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting '{key}'.{did_you_mean(key, known)} Known: {', '.join(known)}")
    training = {key: value for key, value in settings.items() if key in TrainingConfig.model_fields}
    model = {key: value for key, value in settings.items() if key in ModelConfig.model_fields}
    return build_config(TrainingConfig, training), build_config(ModelConfig, model)
