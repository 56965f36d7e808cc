"""Rules of profiles: which setting wins, seeds, floors, unknown names."""

from __future__ import annotations

import pytest

from fedvlr_plugin.config import PROTOCOLS
from fedvlr_plugin.errors import ConfigError, UnknownNameError
from fedvlr_plugin.experiment.profiles import PROFILES, Profile, Rule, get_profile, settings_for, spec_for, specs_for
from fedvlr_plugin.experiment.rows import known_rows, parse_row

RULES: tuple[Rule, ...] = (
    ("*", "*", {"rounds": 10, "params": {"a": 1}}),
    ("ku", "*", {"rounds": 20}),
    ("ku", "*+ours", {"client_lr": 0.5, "params": {"b": 2}}),
)
TEST = Profile("test", "for tests", 2, None, RULES)


def test_later_rules_win_and_params_are_merged() -> None:
    assert settings_for(TEST, "ml", parse_row("FedAvg")) == {"rounds": 10, "params": {"a": 1}}
    assert settings_for(TEST, "ku", parse_row("FedAvg+ours")) == {
        "rounds": 20,
        "client_lr": 0.5,
        "params": {"a": 1, "b": 2},
    }


def test_a_specification_follows_rules_overrides_and_protocol() -> None:
    spec = spec_for(TEST, "ku", "fedavg+OURS", 3, "as_released", {"rounds": 7})
    assert (spec.row, spec.seed, spec.training.rounds, spec.training.client_lr) == ("FedAvg+ours", 3, 7, 0.5)
    assert spec.protocol == PROTOCOLS["as_released"] and spec.model.params == {"a": 1, "b": 2}


def test_floors_are_the_same_run_in_every_profile() -> None:
    floors = {spec_for(p, "ku", "popularity", 4, overrides={"rounds": 3}).spec_hash for p in PROFILES.values()}
    assert len(floors) == 1
    specs = specs_for(TEST, ["ku"], ["chance", "FCF"], 3)
    assert [(s.row, s.seed) for s in specs] == [("chance", 0), ("FCF", 0), ("FCF", 1), ("FCF", 2)]


def test_seeds_come_round_by_round() -> None:
    specs = specs_for(TEST, ["ku", "ml"], ["FedAvg", "FCF"], 2)
    assert [s.seed for s in specs] == [0] * 4 + [1] * 4


def test_every_profile_gives_a_valid_run_for_every_row() -> None:
    for profile in PROFILES.values():
        for dataset in ("ku", "ml", "ml-100k", "planted", "something-else"):
            for row in known_rows():
                spec_for(profile, dataset, row, 0)


def test_unknown_settings_and_profiles() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'participation'"):
        spec_for(TEST, "ku", "FCF", 0, overrides={"participatoin": 1.0})
    with pytest.raises(UnknownNameError, match="Did you mean 'quick'"):
        get_profile("quik")
