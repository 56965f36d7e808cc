"""A backbone registers from outside through an entry point, trains under both engines, and can be a table row."""

import importlib
import sys

import pytest
import torch
from helpers.paths import HELPERS
from helpers.toy import make_toy

from fedvlr_plugin.backbones import BACKBONES, Backbone
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.registry import Registry


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """An installed distribution that declares the entry point, on the path for this test only."""
    info = tmp_path / "metric_fed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: metric-fed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedvlr_plugin.backbones]\nMetricFed = third_party:MetricFed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(HELPERS))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("third_party", None)


def test_an_entry_point_is_enough(outside):
    registry: Registry[type[Backbone]] = Registry("backbone", "fedvlr_plugin.backbones")
    assert "metricfed" in registry
    assert registry.get("MetricFed").__name__ == "MetricFed"
    with pytest.raises(ConfigError, match="is taken"):
        registry.add("MetricFed", BACKBONES.get("FCF"))


@pytest.mark.parametrize("fusion", ["none", "mlp", "blfm"])
def test_it_trains_under_both_engines(outside, monkeypatch, make_spec, fusion):
    monkeypatch.setattr(BACKBONES, "_members", dict(BACKBONES._members))
    monkeypatch.setattr(BACKBONES, "_loaded", False)
    assert "MetricFed" in BACKBONES
    from fedvlr_plugin.experiment.rows import parse_row

    assert parse_row("metricfed+OURS").name == "MetricFed+ours"
    with pytest.raises(ConfigError, match="does not support the fusion 'VBPR'"):
        parse_row("MetricFed+VBPR")
    scores = []
    for engine in ("sequential", "batched"):
        federation = Federation(make_spec("MetricFed"), "MetricFed", fusion, make_toy(), ExecutionConfig(engine=engine))
        for number in (1, 2, 3):
            federation.round(number)
        scores.append(federation.score(torch.arange(9)))
    assert torch.allclose(*scores, atol=1e-9, rtol=0)
