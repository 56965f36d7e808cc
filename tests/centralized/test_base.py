"""What the four centralized models share: parameter counts, modalities, ids, caches, refusals."""

import copy

import numpy as np
import pytest
import torch
from helpers.centralized_numpy import BATCH, NEGATIVES, POSITIVES, USERS
from helpers.centralized_toy import SHAPE, build, data

from fedvlr_plugin.centralized.bm3 import BM3
from fedvlr_plugin.centralized.mgcn import MGCN
from fedvlr_plugin.centralized.pgl import PGL, modality_shares
from fedvlr_plugin.centralized.recbole_dataset import TrainingRows, make_config
from fedvlr_plugin.centralized.vbpr import VBPR
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError, DataError

from recbole.data.interaction import Interaction  # isort: skip

MODELS = (VBPR, BM3, MGCN, PGL)


@pytest.mark.parametrize(("model", "count"), [(VBPR, 127_552), (BM3, 692_160), (MGCN, 708_864), (PGL, 665_216)])
def test_parameter_counts_on_a_set_of_kus_size(model, count):
    prepared = generated(204, 560, 3488)
    config = make_config(model, prepared, {}, "cpu")
    built = model(config, TrainingRows(config, prepared))
    assert sum(p.numel() for p in built.parameters()) == count


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
