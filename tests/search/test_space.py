"""Spaces of a search: the paper's grid, and dimensions that reach the model."""

from __future__ import annotations

import optuna
import pytest

from fedvlr_plugin.api import run
from fedvlr_plugin.config import ModelConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.search.space import grid, point_of, settings_of, space_of

optuna.logging.set_verbosity(optuna.logging.ERROR)

BASE = RunSpec(dataset="tiny", row="FedAvg", training=TrainingConfig(rounds=3))


def test_the_papers_grid() -> None:
    points = grid(space_of("FedAvg"))
    rates = {1e-4, 1e-3, 1e-2, 1e-1}
    assert len(points) == 16 and {p["client_lr"] for p in points} == rates == {p["server_lr"] for p in points}
    assert len(grid(space_of("FedRAP+ours"))) == 32
    fused = settings_of(space_of("FedRAP+ours"), {"client_lr": 0.01, "server_lr": 0.1, "penalty": 0.1})
    expected = {"client_lr": 0.01, "server_lr": 0.01, "server_lr_id": 0.1, "params": {"lam": 0.1, "mu": 0.1}}
    assert fused == expected
    assert settings_of(space_of("FedAvg"), {"client_lr": 0.01, "server_lr": 0.1})["server_lr"] == 0.1
    with pytest.raises(ConfigError, match="not searched"):
        space_of("popularity")


@pytest.mark.parametrize("row", ["VBPR", "BM3", "MGCN", "PGL", "FedRAP", "FedAvg+ours"])
def test_every_dimension_of_a_search_reaches_the_model(tiny: PreparedData, row: str) -> None:
    space = space_of(row)
    middle = {d.name: d.values[len(d.values) // 2] for d in space}
    base = {"rounds": 2, "eval_every": 1, "dim": 8}
    for dimension in space:
        outcomes = [
            run(row, tiny, settings=base | settings_of(space, middle | {dimension.name: value}))
            for value in (min(dimension.values), max(dimension.values))
        ]
        losses = [[entry.train_loss for entry in outcome.curve] for outcome in outcomes]
        assert losses[0] != losses[1], f"{dimension.name} changes nothing"


def test_a_specification_has_a_point_within_the_space() -> None:
    spec = BASE.model_copy(update={"training": TrainingConfig(client_lr=0.02, server_lr_id=5.0)})
    assert point_of(space_of("FedAvg"), spec) == {"client_lr": 0.02, "server_lr": 0.1}
    own = BASE.model_copy(update={"model": ModelConfig(params={"lam": 0.05})})
    assert point_of(space_of("FedRAP"), own)["penalty"] == 0.05
