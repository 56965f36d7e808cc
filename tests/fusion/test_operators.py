"""Fusion operators against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.operators import VIEWS
from fedvlr_plugin.fusion.views import ContentViews


def source():
    return torch.Generator().manual_seed(0)


def test_sum_adds_and_gate_multiplies():
    v, x = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])
    assert VIEWS.get("sum")(["v", "id"], 2, source())([v, x]).tolist() == [[4.0, -1.5]]
    gate = VIEWS.get("gate")(["v", "id"], 2, source())
    with torch.no_grad():
        gate.gates.weight.zero_()
        gate.gates.bias.copy_(torch.logit(torch.tensor([0.5, 0.25, 0.1, 0.8])))
    got = gate([v, x]).detach()
    assert torch.allclose(got, torch.tensor([[0.5 * 1.0 + 0.1 * 3.0, 0.25 * -2.0 + 0.8 * 0.5]]))


def test_gates_see_every_modality():
    gate = VIEWS.get("gate")(["v", "id"], 2, source())
    with torch.no_grad():
        gate.gates.weight.zero_()
        gate.gates.weight[0, 2] = 1.0  # the first gate of v reads the first entry of id
    got = gate([torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]])]).detach()
    assert got[0, 0] == pytest.approx(1 / (1 + np.exp(-2.0)) + 0.5 * 2.0)


def test_mlp_widths():
    mlp = VIEWS.get("mlp")(["v", "c", "id"], 64, source())
    assert [tuple(p.shape) for p in mlp.parameters() if p.ndim == 2] == [(128, 192), (64, 128), (64, 64)]


@pytest.mark.parametrize("modalities", [(), ("text",), ("vision", "text"), ("vision", "text", "audio")])
def test_any_number_of_modalities(modalities):
    data = make_toy(modalities)
    views = ContentViews(data.features, 8, ("sum", "mlp", "gate"), True, source(), torch.float64)
    out = views(torch.randn(23, 8, dtype=torch.float64, generator=source()))
    assert out.shape == (3, 23, 8)
    assert torch.allclose(out.mean(-1), torch.zeros(3, 23, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(out.var(-1, unbiased=False), torch.ones(3, 23, dtype=torch.float64), atol=5e-2)


def test_leaving_the_id_out_really_removes_it():
    data = make_toy()
    views = ContentViews(data.features, 8, ("sum", "gate"), False, source(), torch.float64)
    assert views(None).shape == (2, 23, 8)
    assert views.operators[1].gates.in_features == 16


def test_nothing_to_fuse_is_refused():
    with pytest.raises(ConfigError, match="nothing to fuse"):
        ContentViews(ItemFeatures([]), 8, ("sum",), False, source(), torch.float32)
