"""BM3: losses and scores by hand; its targets carry no gradient."""

import numpy as np
import pytest
import torch
from helpers.centralized_numpy import BATCH, POSITIVES, USERS, arrays, linear
from helpers.centralized_toy import block_of, build, counted, dense

from fedvlr_plugin.centralized.bm3 import BM3


def rows_cos(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_bm3_by_hand():
    model = build(BM3, embedding_size=4, n_layers=2, dropout=0.0, reg_weight=0.2, cl_weight=1.5)
    p = arrays(model)
    square = dense(block_of(counted(1), 1e-7))
    start = np.concatenate([p["user"], p["item"]])
    both = (start + square @ start + square @ square @ start) / 3
    users, items = both[:5], both[5:] + p["item"]
    f = lambda x: linear(p, "predictor", x)  # noqa: E731
    u, i = users[USERS], items[POSITIVES]
    loss = 0.2 * (np.linalg.norm(users) + np.linalg.norm(items)) / 6
    loss += 2 - rows_cos(f(u), i).mean() - rows_cos(f(i), u).mean()
    for m in range(2):
        t = linear(p, f"towers.{m}", p[f"tables.{m}"][POSITIVES])
        loss += 1.5 * (2 - rows_cos(f(t), i).mean() - rows_cos(f(t), t).mean())
    assert model.loss(*BATCH).item() == pytest.approx(loss, rel=1e-5)
    assert np.allclose(model.score(torch.arange(5)).detach(), f(users) @ f(items).T, atol=1e-5)


def test_bm3_targets_carry_no_gradient_and_are_dropped_out():
    model = build(BM3, embedding_size=8, n_layers=0, dropout=0.5, reg_weight=0.0, cl_weight=0.0)
    losses = {round(model.loss(*BATCH).item(), 6) for _ in range(4)}
    assert len(losses) > 1
    model.loss(*BATCH).backward()
    assert model.tables[0].grad is None or not model.tables[0].grad.any()
