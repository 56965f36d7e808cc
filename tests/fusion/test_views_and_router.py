"""Fusion operators against numbers worked out by hand; the router's closed form against autograd."""

import numpy as np
import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import ConfigError, UnknownNameError
from fedvlr_plugin.fusion.operators import VIEWS
from fedvlr_plugin.fusion.router import RouterShape
from fedvlr_plugin.fusion.views import ContentViews, NaiveVBPRView, check_views


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


def test_naive_vbpr_view_is_id_beside_projected_content():
    data = make_toy()
    view = NaiveVBPRView(data.features, 8, source(), torch.float64)
    ids = torch.randn(23, 8, dtype=torch.float64, generator=source())
    out = view(ids)
    content = np.concatenate([m.matrix for m in data.features.values()], axis=1).astype(float)
    weight, bias = view.projection.weight.detach().numpy(), view.projection.bias.detach().numpy()
    assert np.allclose(out.detach().numpy()[0], np.concatenate([ids.numpy(), content @ weight.T + bias], axis=1))
    with pytest.raises(ConfigError, match="needs a content modality"):
        NaiveVBPRView(ItemFeatures([]), 8, source(), torch.float64)


def test_unknown_and_repeated_views_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="gate"):
        check_views(["gates"])
    with pytest.raises(ConfigError, match="twice"):
        check_views(["sum", "sum"])
    with pytest.raises(ConfigError, match="allowed: vision, text, id"):
        ContentViews(make_toy().features, 8, ("only:sound",), True, source(), torch.float32)


def test_router_has_the_papers_number_of_parameters():
    assert RouterShape(3, 64).n_params == 12_547


def test_router_backward_equals_autograd():
    shape = RouterShape(3, 4, hidden=5)
    flat = torch.randn(6, shape.n_params, dtype=torch.float64, generator=source(), requires_grad=True)
    pooled = torch.randn(6, 12, dtype=torch.float64, generator=source()).requires_grad_()
    upstream = torch.randn(6, 3, dtype=torch.float64, generator=source())
    trace = shape.forward(flat, pooled)
    expected = torch.autograd.grad(trace.weights, [flat, pooled], upstream)
    with torch.no_grad():
        grad = torch.full_like(flat, float("nan"))
        got = shape.backward(flat, trace, upstream, grad)
    assert torch.allclose(grad, expected[0], atol=1e-14)
    assert torch.allclose(got, expected[1], atol=1e-14)


def test_router_golden_value():
    """G = 2, d = 1, H = 1: w = softmax(W2 relu(W1 p + b1) + b2), by hand."""
    shape = RouterShape(2, 1, hidden=1)
    flat = torch.tensor([[2.0, -1.0, 0.5, 1.0, -1.0, 0.1, 0.3]], dtype=torch.float64)
    weights = shape.forward(flat, torch.tensor([[1.5, 1.0]], dtype=torch.float64)).weights
    hidden = 2.0 * 1.5 - 1.0 * 1.0 + 0.5
    logits = np.array([hidden + 0.1, -hidden + 0.3])
    assert np.allclose(weights.numpy()[0], np.exp(logits) / np.exp(logits).sum())
