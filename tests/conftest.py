"""Specifications that many tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import pytest

from fedvlr_plugin.config import ModelConfig, Protocol, RunSpec, TrainingConfig

# the loops are compiled once for all processes that tests start, also where Python may write no compiled files
COMPILED = tempfile.TemporaryDirectory(prefix="fedvlr-compiled-")
os.environ.setdefault("NUMBA_CACHE_DIR", COMPILED.name)


@pytest.fixture
def make_spec() -> Callable[..., RunSpec]:
    """A small float64 specification; keywords go to the training configuration, the protocol or the model."""

    def build(row: str = "FedAvg", seed: int = 1, **changes: object) -> RunSpec:
        training: dict[str, object] = {"rounds": 3, "batch_size": 16, "local_epochs": 2, "participation": 0.7}
        model: dict[str, object] = {"dim": 8, "router_hidden": 6}
        protocol: dict[str, object] = {}
        for key, value in changes.items():
            for kind, values in ((TrainingConfig, training), (ModelConfig, model), (Protocol, protocol)):
                if key in kind.model_fields:
                    values[key] = value
                    break
            else:
                raise KeyError(key)
        return RunSpec(
            dataset="toy",
            row=row,
            seed=seed,
            dtype="float64",
            training=TrainingConfig.model_validate(training),
            model=ModelConfig.model_validate(model),
            protocol=Protocol.model_validate(protocol),
        )

    return build
