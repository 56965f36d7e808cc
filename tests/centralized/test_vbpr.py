"""VBPR: scores and loss by hand."""

import numpy as np
import pytest
import torch
from helpers.centralized_numpy import BATCH, NEGATIVES, POSITIVES, USERS, arrays, linear, ranking
from helpers.centralized_toy import build

from fedvlr_plugin.centralized.vbpr import VBPR


def test_vbpr_by_hand():
    model = build(VBPR, embedding_size=4, reg_weight=0.3)
    p, x = arrays(model), model.features.double().numpy()
    items = np.concatenate([p["item"], linear(p, "project", x)], axis=1)
    u, i, j = p["user"][USERS], items[POSITIVES], items[NEGATIVES]
    norms = sum(np.linalg.norm(part) for part in (u, i, j)) / 4
    assert model.loss(*BATCH).item() == pytest.approx(ranking(u, i, j) + 0.3 * norms, rel=1e-5)
    assert np.allclose(model.score(torch.arange(5)).detach(), p["user"] @ items.T, atol=1e-6)
    assert (p["project.bias"] == 0).all() and not model.features.requires_grad
