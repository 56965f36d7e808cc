"""The router's size, its closed form against autograd, and a value by hand."""

import numpy as np
import torch

from fedvlr_plugin.fusion.router import RouterShape


def source():
    return torch.Generator().manual_seed(0)


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
