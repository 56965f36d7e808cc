"""Loss terms by hand."""

import math

import pytest
import torch

from fedvlr_plugin.centralized.losses import bpr, distance, embedding_norms, info_nce, log_bpr


def test_bpr_by_hand():
    positive, negative = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    sigmoid = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))]
    assert bpr(positive, negative).item() == pytest.approx(-sum(math.log(1e-10 + s) for s in sigmoid) / 2)
    assert log_bpr(positive, negative).item() == pytest.approx(-sum(math.log(s) for s in sigmoid) / 2)
    assert math.isfinite(bpr(torch.tensor([0.0]), torch.tensor([200.0])).item())


def test_embedding_norms_are_unsquared_and_divided_by_the_last_rows():
    first, last = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 2.0]])
    assert embedding_norms(first, last).item() == pytest.approx((5 + 3) / 3)


def test_info_nce_by_hand():
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # cosines 1, .6 / 0, .8
    tau = 0.5
    rows = [
        math.exp(1 / tau) / (math.exp(1 / tau) + math.exp(0.6 / tau)),
        math.exp(0.8 / tau) / (math.exp(0 / tau) + math.exp(0.8 / tau)),
    ]
    assert info_nce(first, second, tau).item() == pytest.approx(-sum(map(math.log, rows)) / 2, abs=1e-6)


def test_info_nce_with_counts_is_that_of_repeated_rows():
    source = torch.Generator().manual_seed(2)
    first, second = (torch.randn(4, 3, generator=source, dtype=torch.float64, requires_grad=True) for _ in range(2))
    counts = torch.tensor([3, 1, 2, 1])
    repeated = info_nce(first.repeat_interleave(counts, 0), second.repeat_interleave(counts, 0), 0.3)
    counted = info_nce(first, second, 0.3, counts)
    assert counted.item() == pytest.approx(repeated.item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, (first, second)) for loss in (counted, repeated)]
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(*gradients, strict=True))


def test_distance_is_one_minus_the_mean_cosine():
    left, right = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    assert distance(left, right).item() == pytest.approx(1 - (0 + 1) / 2)
