"""PGL: loss and scores by hand, and the sub-graphs that it trains on."""

import numpy as np
import pytest
import torch
from helpers.centralized_numpy import BATCH, NEGATIVES, POSITIVES, USERS, arrays, linear, nce, nearest, ranking
from helpers.centralized_toy import block_of, build, counted, dense

from fedvlr_plugin.centralized.pgl import PGL
from fedvlr_plugin.centralized.recbole_dataset import TrainingRows, make_config
from fedvlr_plugin.data.synthetic import generated


def test_pgl_by_hand():
    settings = {"embedding_size": 4, "knn_k": 3, "n_mm_layers": 1, "keep_rate": 1.0, "reg_weight": 0.6, "dropout": 0.0}
    model = build(PGL, with_duplicate=False, **settings)
    p = arrays(model)
    towers = [linear(p, f"towers.{m}", p[f"tables.{m}"]) for m in range(2)]
    items = np.concatenate([t / np.linalg.norm(t, axis=1)[:, None] for t in towers], axis=1)
    users = np.concatenate([p["users.0"], p["users.1"]], axis=1)
    mixed = np.zeros((6, 6))
    for share, modality in zip((0.9, 0.1), model.modalities, strict=True):  # text, vision
        _, near = nearest(modality.matrix.astype(float), 3)
        for row in range(6):
            mixed[row, near[row]] += share / 3
    square = dense(block_of(counted(1), 1e-7))
    start = np.concatenate([users, items])
    both = (start + square @ start + square @ square @ start) / 3
    final_u, final_i = both[:5], both[5:] + mixed @ items
    u, i, j = final_u[USERS], final_i[POSITIVES], final_i[NEGATIVES]
    loss = ranking(u, i, j) + 0.6 * 0.5 * (nce(u, u, 0.2) + nce(i, i, 0.2))
    model.train()
    assert model.loss(*BATCH).item() == pytest.approx(loss, rel=1e-4)
    assert np.allclose(model.score(torch.arange(5)).detach(), final_u @ final_i.T, atol=1e-5)


def test_pgl_trains_on_a_sub_graph_drawn_anew_each_epoch_and_scores_with_the_full_one():
    prepared = generated(40, 60, 800, width=8)
    config = make_config(PGL, prepared, {"keep_rate": 0.3}, "cpu")
    model = PGL(config, TrainingRows(config, prepared))
    drawn = []
    for _ in range(3):
        model.train()
        drawn.append(model.sub_graph.matrix)
    kept = int(0.3 * len(prepared.interactions.train_items))
    assert all(graph.values().numel() == 2 * kept for graph in drawn)
    assert len({tuple(graph.col_indices().tolist()) for graph in drawn}) == 3
    model.eval()
    before = model.score(torch.arange(3)).clone()
    model.train()
    model.eval()
    assert torch.equal(before, model.score(torch.arange(3)))


def test_pgl_global_mode_draws_once():
    model = build(PGL, mode="global", embedding_size=4)
    model.train()
    first = model.sub_graph
    model.train()
    assert model.sub_graph is first and torch.isfinite(model.loss(*BATCH))
