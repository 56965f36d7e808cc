"""Profiles: how much to spend on a table, and from that the specification of every run in it.

A profile turns (data set, row, seed, protocol) into a `RunSpec`. Its numbers (rounds, participation, learning rates) stand
here as rules `(data set pattern, row pattern, settings)`. Patterns are those of a shell (`ml*`, `*+ours`); the row pattern
`FEDERATED` stands for every federated row. What a single backbone or model needs, it declares itself (`ProfileRule`).

Settings are applied in this order, the later over the earlier: the profile's `rules`, the row's own, the profile's
`dataset_rules`, the user's. They are fields of `TrainingConfig` or `ModelConfig`; `params` holds the row's own parameters.
Floors take no settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedvlr_plugin.config import PROTOCOLS, ModelConfig, RunSpec, TrainingConfig, build_config
from fedvlr_plugin.declarations import rules_for
from fedvlr_plugin.errors import ConfigError, did_you_mean, unknown_name
from fedvlr_plugin.experiment.rows import CLOSED_FORMS, Row, declared, parse_row

Rule = tuple[str, str, Mapping[str, object]]
FEDERATED = "<federated>"

COMMON: tuple[Rule, ...] = (
    ("*", "*", {"client_lr": 0.01, "server_lr": 0.003, "server_lr_id": 0.03}),
)  # fmt: skip

SMOKE: tuple[Rule, ...] = (
    *COMMON,
    ("*", "*", {"rounds": 5, "local_epochs": 2}),
)  # fmt: skip

# Quick has to show every row on ml-100k, twice, within five minutes on two cores: rows whose local step has a closed
# form train all clients each round; a backbone without one declares a smaller participation.
QUICK: tuple[Rule, ...] = (
    ("*", "*", {"client_lr": 0.02, "server_lr": 0.005, "server_lr_id": 0.05, "rounds": 24, "eval_every": 3}),
    ("*", "*+ours", {"rounds": 18}),
)

QUICK_DATASETS: tuple[Rule, ...] = (
    ("ml", FEDERATED, {"rounds": 30}),
    *(
        (small, "*", {"rounds": 60, "eval_every": 2, "participation": 1.0, "client_lr": 0.01, "server_lr_id": 0.03})
        for small in ("ku", "beauty", "planted")
    ),
)

# Federated runs may stay at the level of popularity for more than 20 rounds before they learn; with a patience of 20 up
# to four of five seeds of a cell on KU stopped there. So they are not stopped early.
PAPER: tuple[Rule, ...] = (
    *COMMON,
    ("*", "*", {"rounds": 200, "patience": 20}),
    ("*", FEDERATED, {"patience": 200}),
)  # fmt: skip

# How the paper profile searches: `method` grid or tpe, `trials` (of tpe), `seeds` of the chosen point, `priority`
# (0 first). The cells that decide the paper's claims come first, with the full grid and five seeds: their backbones and
# models declare it.
PAPER_SEARCH: tuple[Rule, ...] = (
    ("*", "*", {"method": "tpe", "trials": 8, "seeds": 3, "priority": 1}),
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """A budget.

    Attributes:
        name, purpose: as shown to the user.
        seeds: runs per cell unless the user says otherwise.
        datasets: used when the user names none; None = all found under the data root, and ml-100k.
        rules: settings by data set and row.
        dataset_rules: further settings, applied after what the row declares.
        search: how each cell is searched; empty = it is not.
    """

    name: str
    purpose: str
    seeds: int
    datasets: tuple[str, ...] | None
    rules: tuple[Rule, ...]
    dataset_rules: tuple[Rule, ...] = ()
    search: tuple[Rule, ...] = ()


PROFILES: Mapping[str, Profile] = {
    "smoke": Profile("smoke", "a minute on generated data: does everything run?", 1, ("planted",), SMOKE),
    "quick": Profile(
        "quick", "a few minutes on ml-100k: what does the table look like?", 2, None, QUICK, QUICK_DATASETS
    ),
    "paper": Profile(
        "paper", "a search and several seeds per cell, for numbers to quote", 5, None, PAPER, search=PAPER_SEARCH
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

    A closed form has no seed and no settings, so that one stored run serves every profile. `overrides` are settings that
    the user gave, applied last.

    Raises:
        ConfigError, UnknownNameError: an unknown protocol or setting, or a value out of its range.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    parsed = parse_row(row)
    settings = settings_for(profile, dataset, parsed) | dict(overrides or {})
    training, model = split_settings(settings)
    if parsed.name in CLOSED_FORMS:
        one_round = {"training": TrainingConfig(rounds=1)} if parsed.kind == "one_shot" else {}
        return RunSpec(dataset=dataset, row=parsed.name, seed=0, protocol=PROTOCOLS[protocol], **one_round)
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
        if seed == 0 or parse_row(row).name not in CLOSED_FORMS
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


def settings_for(profile: Profile, dataset: str, row: Row) -> dict[str, object]:
    """Collect what a profile and the row itself say about a run.

    Args:
        profile: the budget.
        dataset: name of the data set.
        row: the parsed row.

    Returns:
        Settings as `spec_with` takes them.
    """
    own = rules_for(declared(row).profile_settings, profile.name, _plain_fusion(row))
    return _merge(
        [*_matching(profile.rules, dataset, row), *own, *_matching(profile.dataset_rules, dataset, row)]
    )  # fmt: skip


def search_for(profile: Profile, dataset: str, row: Row) -> dict[str, object]:
    """Collect how a profile searches a cell: `method`, `trials`, `seeds`, `priority`; empty where it does not.

    Args:
        profile: the budget.
        dataset: name of the data set.
        row: the parsed row.
    """
    if not profile.search:
        return {}
    own = rules_for(declared(row).profile_search, profile.name, _plain_fusion(row))
    return _merge([*_matching(profile.search, dataset, row), *own])


def _plain_fusion(row: Row) -> str | None:
    """The fusion that rules for single fusions go by; None with an addition, such as the bonus for new items."""
    return None if row.new_items else row.fusion


def _matching(rules: Iterable[Rule], dataset: str, row: Row) -> list[Mapping[str, object]]:
    """Settings of the rules whose two patterns fit."""
    return [
        settings
        for dataset_pattern, row_pattern, settings in rules
        if fnmatchcase(dataset, dataset_pattern)
        and (row.kind == "federated" if row_pattern == FEDERATED else fnmatchcase(row.name, row_pattern))
    ]


def _merge(parts: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """One mapping, later parts over earlier ones; `params` are merged key by key."""
    settings: dict[str, object] = {}
    params: dict[str, object] = {}
    for values in parts:
        own_parameters = values.get("params")
        if isinstance(own_parameters, Mapping):
            params |= own_parameters
        settings |= {key: value for key, value in values.items() if key != "params"}
    return settings | {"params": params} if params else settings


def split_settings(settings: Mapping[str, object]) -> tuple[TrainingConfig, ModelConfig]:
    """Sort settings into the two parts of a specification; raise `ConfigError` for an unknown or bad one."""
    known = [*TrainingConfig.model_fields, *ModelConfig.model_fields]
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting '{key}'.{did_you_mean(key, known)} Known: {', '.join(known)}")
    training = {key: value for key, value in settings.items() if key in TrainingConfig.model_fields}
    model = {key: value for key, value in settings.items() if key in ModelConfig.model_fields}
    return build_config(TrainingConfig, training), build_config(ModelConfig, model)
