"""Toy data with every edge, small runs on it, and the comparison of two federations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest
import torch

from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.config import ExecutionConfig, ModelConfig, Protocol, RunSpec, TrainingConfig
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.engines.base import Uplink
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.fusion.views import Fusion

SIZES = (0, 1, 1, 2, 3, 5, 8, 12, 15)
WIDTHS = {"vision": 7, "text": 5, "audio": 3}
ALL_USERS = torch.arange(len(SIZES))
TOLERANCE = 1e-9


def make_toy(modalities: Sequence[str] = ("vision", "text"), n_items: int = 23, seed: int = 0) -> PreparedData:
    """Make a data set of nine users: one with nothing to train on, two with a single item, one with most of the items.

    Args:
        modalities: names of `WIDTHS`; may be empty.
        n_items: number of items, at least 17.
        seed: of the draws.

    Returns:
        The data set, every user with one validation and one test item.
    """
    source = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(SIZES)), SIZES)
    items = np.concatenate([source.choice(n_items, size, replace=False) for size in SIZES])
    held_out = np.array(
        [source.choice(np.setdiff1d(np.arange(n_items), items[users == u]), 2, False) for u in range(len(SIZES))]
    )
    everyone = np.arange(len(SIZES))
    interactions = Interactions.from_labels(
        np.concatenate([users, everyone, everyone]),
        np.concatenate([items, held_out[:, 0], held_out[:, 1]]),
        np.repeat([0, 1, 2], [len(users), len(SIZES), len(SIZES)]),
        tuple(f"u{u}" for u in everyone),
        tuple(f"i{i}" for i in range(n_items)),
    )
    features = [
        Modality(name, source.normal(size=(n_items, WIDTHS[name])).astype(np.float32), np.ones(n_items, bool), "toy")
        for name in modalities
    ]
    return PreparedData("toy", interactions, ItemFeatures(features))


def toy_spec(row: str = "FedAvg", /, **changes: object) -> RunSpec:
    """Make a small specification in float64: three rounds, d = 8, seven of ten clients a round.

    Args:
        row: name of a row.
        changes: fields of `TrainingConfig`, `ModelConfig` or `Protocol`, and `seed`, 1 where it is not given.

    Raises:
        KeyError: a change is a field of none of them.
    """
    values: dict[type[TrainingConfig | ModelConfig | Protocol], dict[str, object]] = {
        TrainingConfig: {"rounds": 3, "batch_size": 16, "local_epochs": 2, "participation": 0.7},
        ModelConfig: {"dim": 8, "router_hidden": 6},
        Protocol: {},
    }
    seed = changes.pop("seed", 1)
    for key, value in changes.items():
        kind = next((kind for kind in values if key in kind.model_fields), None)
        if kind is None:
            raise KeyError(key)
        values[kind][key] = value
    return RunSpec(
        dataset="toy",
        row=row,
        seed=int(str(seed)),
        dtype="float64",
        training=TrainingConfig.model_validate(values[TrainingConfig]),
        model=ModelConfig.model_validate(values[ModelConfig]),
        protocol=Protocol.model_validate(values[Protocol]),
    )


def toy_federation(
    backbone: str,
    fusion: Fusion,
    engine: Literal["batched", "sequential"] = "batched",
    data: PreparedData | None = None,
    block: int | None = None,
    changes: Mapping[str, object] | None = None,
) -> Federation:
    """Build a federation on the toy data.

    Args:
        backbone: name of a registered backbone.
        fusion: one that it supports.
        engine: the engine.
        data: another data set.
        block: clients per block of the batched engine; None: chosen by size.
        changes: as `toy_spec` takes them.
    """
    execution = ExecutionConfig(engine=engine, block_clients=block)
    return Federation(toy_spec(backbone, **(changes or {})), backbone, fusion, data or make_toy(), execution)


def train(federation: Federation, rounds: int = 3) -> Uplink:
    """Train some rounds, at least one; return the uplink of the last."""
    uplinks = [federation.round(number) for number in range(1, rounds + 1)]
    return uplinks[-1]


def assert_same(
    one: Federation, other: Federation, uplink: Uplink, other_uplink: Uplink, tolerance: float = TOLERANCE
) -> None:
    """Assert that two federations have the same uplink, shared parameters and scores, up to `tolerance`."""
    for name, value in uplink.sums.items():
        assert torch.allclose(value, other_uplink.sums[name], atol=tolerance, rtol=0), name
    shared, other_shared = one.server.model.state_dict(), other.server.model.state_dict()
    for name, value in shared.items():
        assert torch.allclose(value, other_shared[name], atol=tolerance, rtol=0), name
    assert torch.allclose(one.score(ALL_USERS), other.score(ALL_USERS), atol=tolerance, rtol=0)
    assert uplink.loss == pytest.approx(other_uplink.loss, abs=tolerance)
    assert (uplink.clients, uplink.samples) == (other_uplink.clients, other_uplink.samples)


UPLOAD_SHAPE = {
    "views": torch.zeros(2, 7, 3),
    "table.a": torch.zeros(7, 2),
    "layer.t.weight": torch.zeros(2, 3),
    "layer.t.bias": torch.zeros(2),
}


def make_uploads(
    n_clients: int = 6, seed: int = 0, touched: float = 0.5, same: bool = False, shape: UploadShape | None = None
) -> ClientUploads:
    """Draw uploads of the clients 0, 1, ..., in float64.

    Args:
        n_clients: B, number of clients.
        seed: of the draws.
        touched: expected share of the items that a client touches.
        same: whether all clients upload the same values (for the items they touch).
        shape: of the broadcast; None: two views, a table and a layer over seven items.
    """
    shape = shape or UploadShape(UPLOAD_SHAPE)
    source = torch.Generator().manual_seed(seed)
    hit = torch.rand(n_clients, shape.n_items, generator=source) < touched
    keys = torch.nonzero(hit.view(-1))[:, 0]
    distinct = 1 if same else n_clients
    rows = torch.randn(distinct, shape.n_items, shape.row_width, generator=source, dtype=torch.float64)
    layers = torch.randn(distinct, shape.layer_width, generator=source, dtype=torch.float64)
    sizes = torch.randint(1, 9, (n_clients,), generator=source)
    return ClientUploads(
        shape,
        torch.arange(n_clients),
        sizes,
        keys,
        rows.expand(n_clients, -1, -1).reshape(-1, shape.row_width)[keys],
        layers.expand(n_clients, -1).clone(),
    )
