"""Estimates of time: they grow with the work and learn from stored runs."""

from __future__ import annotations

import pytest

from fedvlr_plugin.experiment.estimate import estimate_seconds, format_seconds, samples_per_round
from fedvlr_plugin.experiment.profiles import Profile, Rule, spec_for
from fedvlr_plugin.experiment.store import ResultsStore

RULES: tuple[Rule, ...] = (
    ("*", "*", {"rounds": 10, "params": {"a": 1}}),
    ("ku", "*", {"rounds": 20}),
    ("ku", "*+ours", {"client_lr": 0.5, "params": {"b": 2}}),
)
TEST = Profile("test", "for tests", 2, None, RULES)


def test_estimates_grow_with_the_work_and_learn_from_stored_runs(tmp_path, tiny, fake) -> None:
    x = tiny.interactions
    spec = spec_for(TEST, "tiny", "FedAvg", 0)
    assert samples_per_round(spec, x) == 30 * 4 * 5 * 5
    longer = spec_for(TEST, "tiny", "FedAvg", 0, overrides={"rounds": 1000})
    ours = spec_for(TEST, "tiny", "FedAvg+ours", 0, overrides={"rounds": 1000})
    assert estimate_seconds(spec, x) < estimate_seconds(longer, x) < estimate_seconds(ours, x)
    record = ResultsStore(tmp_path).append(fake(spec, data=tiny), tiny)  # 10 rounds in 0.5 s
    assert estimate_seconds(longer, x, [record]) == pytest.approx(50.0)
    assert estimate_seconds(spec_for(TEST, "tiny", "chance", 0), x) < 1


def test_times_are_spelled_for_people() -> None:
    assert [format_seconds(s) for s in (0.2, 45.4, 600, 12_600)] == ["1 s", "45 s", "10 min", "3.5 h"]
