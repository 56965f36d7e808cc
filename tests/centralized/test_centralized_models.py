"""VBPR, BM3, MGCN and PGL: parameter counts, losses and scores against dense numpy on the toy, ids, stale caches."""

import copy

import numpy as np
import pytest
import torch
from helpers.centralized_toy import SHAPE, block_of, build, counted, data, dense

from fedvlr_plugin.centralized.bm3 import BM3
from fedvlr_plugin.centralized.mgcn import MGCN
from fedvlr_plugin.centralized.pgl import PGL, modality_shares
from fedvlr_plugin.centralized.recbole_dataset import TrainingRows, make_config
from fedvlr_plugin.centralized.vbpr import VBPR
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError, DataError

from recbole.data.interaction import Interaction  # isort: skip

MODELS = (VBPR, BM3, MGCN, PGL)
USERS, POSITIVES, NEGATIVES = torch.tensor([0, 2, 3, 0]), torch.tensor([1, 3, 4, 0]), torch.tensor([2, 5, 0, 5])
BATCH = (USERS, POSITIVES, NEGATIVES)


def arrays(model):
    return {name: value.detach().double().numpy() for name, value in model.named_parameters()}


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rows_cos(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def nce(a, b, tau):
    logits = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T / tau
    return -np.mean(np.diag(logits) - np.log(np.exp(logits).sum(axis=1)))


def nearest(x, k):
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    cosines = unit @ unit.T
    return cosines, np.argsort(-cosines, axis=1)[:, :k]


def ranking(u, i, j):
    return -np.mean(np.log(sigmoid((u * i).sum(1) - (u * j).sum(1))))


@pytest.mark.parametrize(("model", "count"), [(VBPR, 127_552), (BM3, 692_160), (MGCN, 708_864), (PGL, 665_216)])
def test_parameter_counts_on_a_set_of_kus_size(model, count):
    prepared = generated(204, 560, 3488)
    config = make_config(model, prepared, {}, "cpu")
    built = model(config, TrainingRows(config, prepared))
    assert sum(p.numel() for p in built.parameters()) == count


def test_vbpr_by_hand():
    model = build(VBPR, embedding_size=4, reg_weight=0.3)
    p, x = arrays(model), model.features.double().numpy()
    items = np.concatenate([p["item"], linear(p, "project", x)], axis=1)
    u, i, j = p["user"][USERS], items[POSITIVES], items[NEGATIVES]
    norms = sum(np.linalg.norm(part) for part in (u, i, j)) / 4
    assert model.loss(*BATCH).item() == pytest.approx(ranking(u, i, j) + 0.3 * norms, rel=1e-5)
    assert np.allclose(model.score(torch.arange(5)).detach(), p["user"] @ items.T, atol=1e-6)
    assert (p["project.bias"] == 0).all() and not model.features.requires_grad


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


def test_shares_of_the_item_graphs():
    assert modality_shares(["vision", "text"], 0.1) == [0.1, 0.9]
    assert modality_shares(["text"], 0.1) == [1.0]
    assert modality_shares(["a", "text", "b"], 0.2) == [0.1, 0.8, 0.1]
    assert modality_shares(["a", "b"], 0.1) == [0.5, 0.5]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("modalities", [(), ("text",), ("text", "vision", "audio")])
def test_any_number_of_modalities(model, modalities):
    if not modalities and model.needs_modalities:
        with pytest.raises(DataError, match="needs item features"):
            build(model, modalities)
        return
    built = build(model, modalities, embedding_size=4, **({"knn_k": 3} if model in (MGCN, PGL) else {}))
    loss = built.loss(*BATCH)
    loss.backward()
    assert torch.isfinite(loss) and built.score(torch.arange(5)).shape == SHAPE


@pytest.mark.parametrize("model", MODELS)
def test_recboles_ids_begin_at_one(model):
    built = build(model, embedding_size=4)
    built.eval()
    own = built.score(torch.arange(5))
    hosts = built.full_sort_predict(Interaction({"user_id": torch.arange(1, 6)})).view(5, 7)
    assert torch.equal(hosts[:, 1:], own) and torch.isinf(hosts[:, 0]).all()
    pairs = Interaction({"user_id": torch.tensor([1, 5]), "item_id": torch.tensor([6, 1])})
    assert torch.allclose(built.predict(pairs), torch.stack([own[0, 5], own[4, 0]]))


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_never_stale(model):
    built = build(model, embedding_size=4)
    built.eval()
    state, before = copy.deepcopy(built.state_dict()), built.score(torch.arange(5)).clone()
    batch = {"user_id": USERS + 1, "item_id": POSITIVES + 1, "neg_item_id": NEGATIVES + 1}
    built.train()
    optimizer = torch.optim.SGD(built.parameters(), lr=0.5)
    built.calculate_loss(Interaction(batch)).backward()
    optimizer.step()
    built.eval()
    assert not torch.allclose(before, built.score(torch.arange(5)))
    built.load_state_dict(state)
    assert torch.allclose(before, built.score(torch.arange(5)))


def test_features_of_recboles_preload_weight_are_accepted():
    """RecBole's documented way: `preload_weight`, rows in the order of its ids, a row of zeros for padding."""
    with_ours, prepared = build(VBPR, embedding_size=4), data()

    class Theirs(TrainingRows):
        item_features = None

        def _preload_weight_matrix(self):
            """RecBole would read the weights from atomic files, which the toy does not have."""

        def get_preload_weight(self, field):
            matrix = self._data.features["text"].matrix if field == "tid" else self._data.features["vision"].matrix
            return np.concatenate([np.zeros((1, matrix.shape[1])), matrix.astype(np.float64)])

    settings = {"preload_weight": {"tid": "text", "vid": "vision"}, "embedding_size": 4}
    config = make_config(VBPR, prepared, settings, "cpu")
    assert torch.equal(VBPR(config, Theirs(config, prepared)).features, with_ours.features)


def test_bad_parameters_are_refused():
    with pytest.raises(ConfigError, match="n_layer'.*Did you mean 'n_layers'"):
        build(BM3, n_layer=2)
    with pytest.raises(ConfigError, match="dropout"):
        build(BM3, dropout=1.5)
    with pytest.raises(ConfigError, match="mode"):
        build(PGL, mode="nowhere")
    with pytest.raises(ConfigError, match="set rounds of the run"):
        build(BM3, epochs=3)
