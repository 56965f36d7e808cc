"""The compiled sums of a step beside the obvious way, in Python and in numpy."""

import numpy as np
import pytest
import torch
from helpers.compiled_toy import Block
from helpers.federation_toy import build, train

from fedvlr_plugin.engines import closed_form, histories
from fedvlr_plugin.engines.compiled import available
from fedvlr_plugin.engines.sampling import Batches

pytest.importorskip("numba", reason="needs the extra 'speed'")
from fedvlr_plugin.engines.compiled import linear  # noqa: E402


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def expected(block):
    losses, grad_q, grad_bias, sums = np.zeros(4), np.zeros(block.q.shape), np.zeros(4), block.sums.astype(float)
    for c, i, y in block.samples():
        s = block.q[c] @ block.table[i] + block.bias[c]
        r = (sigmoid(s) - y) * block.share[c]
        losses[c] += (np.log1p(np.exp(s)) - y * s) * block.share[c]
        grad_q[c] += r * block.table[i]
        grad_bias[c] += r
        sums[i] += block.alpha[c] * r * block.q[c]
    return losses, grad_q, grad_bias, sums


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("written", ["compiled", "python"])
def test_sampled_products_are_the_sums_they_stand_for(dtype, tolerance, written):
    block = Block(dtype, views=2)
    losses, grad_q, grad_bias = block.room()
    run = linear.sampled if written == "compiled" else linear.sampled.py_func
    sums = block.sums.copy()
    run(block.q, block.bias, block.table, block.items, block.labels, block.indptr, block.share, block.alpha, sums,
        losses, grad_q, grad_bias)  # fmt: skip
    for found, wanted in zip((losses, grad_q, grad_bias, sums), expected(block), strict=True):
        assert found.dtype == dtype and np.allclose(found, wanted, atol=tolerance, rtol=0)


def test_residuals_are_what_lies_between_the_products():
    block = Block()
    losses, _, grad_bias = block.room()
    scores = block.q @ block.table.T + block.bias[:, None]
    residual = np.full_like(scores, np.nan)
    linear.residuals(scores, block.items, block.labels, block.indptr, block.share, losses, grad_bias, residual)
    wanted = expected(block)
    found = (losses, residual @ block.table, grad_bias, block.sums + residual.T @ (block.alpha[:, None] * block.q))
    for one, other in zip(found, wanted, strict=True):
        assert np.allclose(one, other, atol=1e-12, rtol=0)


def test_large_scores_neither_overflow_nor_hide_what_is_not_finite():
    block = Block(np.float32)
    block.bias[:] = [300.0, -300.0, np.nan, np.inf]
    losses, grad_q, grad_bias = block.room()
    linear.sampled(block.q, block.bias, block.table, block.items, block.labels, block.indptr, block.share, block.alpha,
                   block.sums, losses, grad_q, grad_bias)  # fmt: skip
    near = (block.labels[:150] == 0).mean() * 300
    assert losses[0] == pytest.approx(near, rel=0.1) and np.isfinite(losses[1])
    assert np.isnan(losses[2]) and np.isnan(grad_q[2]).all() and losses[3] == 0 and (grad_q[3] == 0).all()


@pytest.mark.parametrize("fusion", ["none", "blfm"])
def test_all_ways_to_the_products_give_the_same(make_spec, monkeypatch, fusion):
    """The choices by density, and that of compiled loops, are choices of speed only."""
    scores = []
    for compiled, until, fewest in ((False, 0, 4), (False, 10**9, 4), (True, 8, 1), (True, 8, 10**9)):
        monkeypatch.setattr(available, "_available", lambda compiled=compiled: compiled)
        monkeypatch.setattr(closed_form, "DENSE_UNTIL", until)
        monkeypatch.setattr(histories, "DENSE_UNTIL", until)
        monkeypatch.setattr(closed_form, "FEWEST", fewest)
        federation = build(make_spec, "FedAvg", fusion, participation=1.0)
        losses = train(federation).loss
        scores.append(torch.cat([federation.score(torch.arange(9)), torch.full((9, 1), losses)], dim=1))
    for one, other in zip(scores, scores[1:], strict=False):
        assert not torch.equal(one, other) and torch.allclose(one, other, atol=1e-11, rtol=0)


def test_full_clients_are_a_prefix():
    counts = torch.tensor([25, 10, 9, 12, 1])
    assert [cut.full for cut in Batches(counts, 100, 40, torch.float64).cuts] == [2]
    assert [cut.full for cut in Batches(torch.tensor([25, 11]), 10, 40, torch.float64).cuts] == [2, 1, 0]
