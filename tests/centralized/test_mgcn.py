"""MGCN: loss and scores by hand."""

import numpy as np
import pytest
import torch
from helpers.centralized_numpy import BATCH, NEGATIVES, POSITIVES, USERS, arrays, linear, nce, nearest, ranking, sigmoid
from helpers.centralized_toy import block_of, build, counted, dense

from fedvlr_plugin.centralized.mgcn import MGCN


def test_mgcn_by_hand():
    settings = {"embedding_size": 4, "knn_k": 3, "n_layers": 2, "reg_weight": 0.05, "cl_loss": 0.4}
    model = build(MGCN, train_batch_size=7, **settings)
    p = arrays(model)
    block = block_of(counted(2))
    square = dense(block)
    start = np.concatenate([p["user"], p["item"]])
    c = (start + square @ start + square @ square @ start) / 3
    modal = []
    for m, modality in enumerate(model.modalities):
        cosines, near = nearest(modality.matrix.astype(float), 3)
        kept = np.zeros((6, 6))
        for row in range(6):
            kept[row, near[row]] = np.maximum(cosines[row, near[row]], 0)
        d = kept.sum(axis=1)
        s = kept / np.sqrt(d[:, None] * d[None, :])
        gate = sigmoid(linear(p, f"purifiers.{m}.0", linear(p, f"towers.{m}", p[f"tables.{m}"])))
        items = s @ s @ (p["item"] * gate)
        modal.append(np.concatenate([block @ items, items]))
    scores = np.concatenate([linear(p, "query.2", np.tanh(linear(p, "query.0", e))) for e in modal], axis=1)
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    common = sum(weights[:, m : m + 1] * e for m, e in enumerate(modal))
    special = [(e - common) * sigmoid(linear(p, f"preferences.{m}.0", c)) for m, e in enumerate(modal)]
    side = (special[0] + special[1] + common) / 3
    final = c + side
    u, i, j = final[:5][USERS], final[5:][POSITIVES], final[5:][NEGATIVES]
    loss = ranking(u, i, j) + 0.05 * 0.5 * sum((x**2).sum() for x in (u, i, j)) / 7
    rows = POSITIVES.numpy() + 5
    loss += 0.4 * (nce(side[rows], c[rows], 0.2) + nce(side[USERS], c[USERS], 0.2))
    assert model.loss(*BATCH).item() == pytest.approx(loss, rel=1e-4)
    assert np.allclose(model.score(torch.arange(5)).detach(), final[:5] @ final[5:].T, atol=1e-5)
