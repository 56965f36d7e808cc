"""What the suites of the engines share: all backbones x fusions on the toy data, and comparison of two federations."""

import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.federation.simulation import Federation

CASES = [(b, f) for b in BACKBONES for f in ("none", "mlp", "vbpr", "blfm") if f in BACKBONES.get(b).fusions]
ALL = torch.arange(9)
cases = pytest.mark.parametrize("backbone, fusion", CASES)


def build(make_spec, backbone, fusion, engine="batched", data=None, block=None, **changes):
    execution = ExecutionConfig(engine=engine, block_clients=block)
    return Federation(make_spec(backbone, **changes), backbone, fusion, data or make_toy(), execution)


def train(federation, rounds=3):
    uplinks = [federation.round(number) for number in range(1, rounds + 1)]
    return uplinks[-1]


def assert_same(a, b, uplink_a, uplink_b, tolerance=1e-9):
    for name, value in uplink_a.sums.items():
        assert torch.allclose(value, uplink_b.sums[name], atol=tolerance, rtol=0), name
    for name, value in a.server.snapshot().items():
        assert torch.allclose(value, b.server.snapshot()[name], atol=tolerance, rtol=0), name
    assert torch.allclose(a.score(ALL), b.score(ALL), atol=tolerance, rtol=0)
    assert uplink_a.loss == pytest.approx(uplink_b.loss, abs=tolerance)
    assert (uplink_a.clients, uplink_a.samples) == (uplink_b.clients, uplink_b.samples)
