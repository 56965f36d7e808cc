"""What the suites of the engines share: all backbones x fusions on the toy data, and comparison of two federations."""

import pytest
from helpers.toy import make_toy

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.testing.toy import ALL_USERS, assert_same, train

CASES = [(b, f) for b in BACKBONES for f in ("none", "mlp", "vbpr", "blfm") if f in BACKBONES.get(b).fusions]
ALL = ALL_USERS
cases = pytest.mark.parametrize("backbone, fusion", CASES)


def build(make_spec, backbone, fusion, engine="batched", data=None, block=None, **changes):
    execution = ExecutionConfig(engine=engine, block_clients=block)
    return Federation(make_spec(backbone, **changes), backbone, fusion, data or make_toy(), execution)


__all__ = ["ALL", "CASES", "assert_same", "build", "cases", "train"]
