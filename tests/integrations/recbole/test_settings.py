"""RecBole's own Config, keys and data sets with our models: what the user gave is heard, or refused by name."""

import math
import os
import sys

import numpy as np
import pytest
import torch

import fedvlr_plugin
from fedvlr_plugin.config import TrainingConfig
from fedvlr_plugin.errors import ConfigError, DataError, FedVLRError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Ranks
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.integrations.recbole.valid_metric import ValidMetric

from recbole.config import Config  # isort: skip
from recbole.data import create_dataset, data_preparation  # isort: skip
from recbole.data.dataset import Dataset  # isort: skip
from recbole.utils import get_model, get_trainer, init_seed  # isort: skip
from recbole.utils.case_study import full_sort_topk  # isort: skip

SMALL = {"local_epochs": 1, "participation": 0.3, "router_hidden": 8}
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
RATIO = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """RecBole's Config reads the command line and sets the visible devices."""
    fedvlr_plugin.register()
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shop(tmp_path):
    """A folder of one atomic data set, also in three files of a fixed split."""
    folder = tmp_path / "mine" / "shop"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", t) for u in range(30) for t, i in enumerate(draw.choice(40, 12, replace=False))]
    lines = [f"{u}\t{i}\t{t}\n" for u, i, t in rows]
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "shop.inter").write_text(head + "".join(lines))
    for part, times in (("train", range(10)), ("valid", [10]), ("test", [11])):
        chosen = "".join(line for line, (_, _, t) in zip(lines, rows, strict=True) if t in times)
        (folder / f"shop.{part}.inter").write_text(head + chosen)
    return tmp_path / "mine"


def assembled(model, dataset="planted", files=None, **settings):
    """Config, data set, loaders, model and trainer as RecBole's quick start makes them."""
    config = Config(model, dataset, files, {"checkpoint_dir": "kept", **settings})
    init_seed(config["seed"], True)
    data = create_dataset(config)
    loaders = data_preparation(config, data)
    made = get_model(model)(config, loaders[0]._dataset)
    return config, data, loaders, made, get_trainer(config["MODEL_TYPE"], model)(config, made)


def fitted(model, dataset="planted", **settings):
    config, data, (train, valid, test), made, trainer = assembled(model, dataset, **settings)
    calls = []
    best, result = trainer.fit(train, valid, verbose=False, saved=False, callback_fn=lambda *a: calls.append(a))
    return best, result, calls, made, trainer, test


def test_the_same_configuration_is_heard_by_bpr_and_by_fedvlr(shop):
    asked = {
        "data_path": str(shop),
        "epochs": 3,
        "learning_rate": 0.02,
        "train_batch_size": 100,
        "stopping_step": 7,
        "eval_step": 1,
        "embedding_size": 16,
        "learner": "sgd",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 2},
        "metrics": ["MRR", "Hit"],
        "topk": [5, 10],
        "valid_metric": "MRR@10",
        "metric_decimal_place": 3,
        "seed": 11,
        "eval_args": LEAVE_ONE_OUT,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    }
    _, _, (train, _, _), bpr, theirs = assembled("BPR", "shop", **asked)
    _, data, loaders, ours, trainer = assembled("FedVLR", "shop", **asked, **SMALL)
    training = ours.spec.training
    assert training.rounds == theirs.epochs == 3
    assert training.client_lr == theirs.optimizer.param_groups[0]["lr"] == 0.02
    assert (training.client_optimizer, training.batch_size) == (theirs.learner, train.config["train_batch_size"])
    assert training.patience == theirs.stopping_step == 7 and training.eval_every == theirs.eval_step
    assert ours.spec.model.dim == bpr.embedding_size == 16
    assert ours.spec.protocol.negatives == train.neg_sample_num == 2
    assert ours.spec.seed == 11 and (ours.n_users, ours.n_items) == (bpr.n_users, bpr.n_items)
    assert ours.valid_metric.key == theirs.valid_metric == "mrr@10"
    best, result = trainer.fit(loaders[0], loaders[1], verbose=False, saved=False)
    assert list(result) == ["mrr@5", "mrr@10", "hit@5", "hit@10"]
    assert all(value == round(value, 3) for value in result.values()) and result["mrr@10"] == round(best, 3)
    assert len(trainer.fitted.records) == 3
    for loader in loaders[1:]:
        assert len(loader.uid_list) == 30


def test_defaults_of_recbole_are_not_taken_for_the_users_wish():
    _, _, _, model, trainer = assembled("FedVLR")
    assert model.spec.training == TrainingConfig() and model.spec.model.dim == 64
    assert model.spec.protocol.negatives == 4 and model.valid_metric.key == "ndcg@50" and trainer.places is None


def test_a_configuration_file_counts_as_given(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 2\nlearning_rate: 5e-3\ntrain_neg_sample_args: {sample_num: 3}\n")
    _, _, _, model, _ = assembled("FedVLR", files=[str(tmp_path / "mine.yaml")])
    assert (model.spec.training.rounds, model.spec.training.client_lr) == (2, 0.005)
    assert model.spec.protocol.negatives == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": 2, "rounds": 3}, "epochs asks for 2 and rounds for 3.*give one"),
        ({"learning_rate": 0.1, "client_lr": 0.2}, "learning_rate asks for 0.1 and client_lr for 0.2"),
        (
            {"train_neg_sample_args": {"sample_num": 1}, "negatives": 4},
            "train_neg_sample_args asks for 1.*negatives for 4",
        ),
        ({"stopping_step": 0}, "stopping_step is patience of FedVLR.*greater than or equal to 1"),
        ({"embedding_size": "wide"}, "embedding_size is dim of FedVLR"),
        ({"learner": "rmsprop"}, "learner is client_optimizer of FedVLR"),
        ({"learning_rat": 0.1}, "unknown configuration key 'learning_rat'.*Did you mean 'learning_rate'"),
        ({"weight_decay": 0.1}, "weight_decay is 0.1.*leave it out"),
        ({"clip_grad_norm": {"max_norm": 1}}, "clip_grad_norm.*cannot"),
        ({"repeatable": True}, "repeatable is True"),
        ({"training_neg_sample_num": 2}, "set negatives, or train_neg_sample_args"),
        ({"train_neg_sample_args": {"distribution": "popularity"}}, "distribution is 'popularity'.*uniform"),
        ({"train_neg_sample_args": {"dynamic": True, "candidate_num": 2}}, "dynamic negatives"),
        ({"train_neg_sample_args": None}, "clients need negatives"),
        ({"valid_metric": "ItemCoverage@10"}, "cannot choose the round.*Allowed: Hit@k"),
        ({"valid_metric": "NDGC@10"}, "Did you mean 'ndcg'"),
        ({"valid_metric": "Hit"}, "needs a cut-off"),
        ({"eval_args": LEAVE_ONE_OUT | {"mode": "uni100"}}, "mode of valid is 'uni100'.*mode: full"),
        ({"eval_args": LEAVE_ONE_OUT | {"mode": {"valid": "full", "test": "pop10"}}}, "mode of test is 'pop10'"),
        ({"eval_args": RATIO}, "leave-one-out.*or take VBPR, BM3, MGCN or PGL"),
        ({"benchmark_filename": ["train", "valid", "test"]}, "benchmark_filename.*x_label"),
        ({"rm_dup_inter": "last"}, "rm_dup_inter is 'last'.*first is kept"),
        ({"data_path": "nowhere"}, "data_path: 'nowhere' is not a folder"),
    ],
)
def test_what_means_nothing_to_fedvlr_is_refused_in_one_line(settings, message):
    with pytest.raises(FedVLRError, match=message) as caught:
        assembled("FedVLR", **settings)
    assert "\n" not in str(caught.value)


def test_one_setting_under_two_names_is_fine_when_they_agree(shop):
    same = {"epochs": 2, "rounds": 2, "learning_rate": 1e-2, "client_lr": 0.01, "data_root": str(shop)}
    _, data, _, model, _ = assembled("FedVLR", "shop", data_path=f"{shop}/", **same)
    assert model.spec.training.rounds == 2 and data.prepared.interactions.n_users == 30
    with pytest.raises(ConfigError, match="data_root is .* and data_path .* give one"):
        assembled("FedVLR", "shop", data_path=str(shop / "shop"), data_root=str(shop))


def test_an_unknown_key_of_the_command_line_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=2", "--my_out=x"])
    _, _, _, model, _ = assembled("FedVLR")
    assert model.spec.training.rounds == 2 and "unknown configuration key 'my_out'" in caplog.text


@pytest.mark.parametrize("name", ["Hit@3", "Recall@5", "Precision@10", "MRR@10", "MAP@7", "NDCG@20", "GAUC"])
def test_the_score_that_chooses_is_recboles_metric(name):
    metric, _, cut = name.partition("@")
    asked = {"metrics": [metric], "topk": [int(cut or 10)], "valid_metric": name, "epochs": 3, **SMALL}
    best, result, calls, *_ = fitted("FedVLR", **asked)
    assert best == max(score for _, score in calls) and len(calls) == 3
    assert result[name.lower()] == pytest.approx(best, abs=1e-6) and best > 0


def test_metrics_of_ranks_by_hand():
    """Positives at ranks 0 and 3, and one tied with another at ranks 1 and 2."""
    zero = np.zeros(3, np.int64)
    ranks = Ranks(np.arange(3), zero, np.array([0, 3, 1]), np.array([0, 0, 1]), zero.astype(bool))
    value = {name: ValidMetric.parse(name).value(ranks, None) for name in ("Hit@2", "Precision@2", "MRR@3", "NDCG@3")}
    assert value["Hit@2"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert value["Precision@2"] == pytest.approx((1 + 0 + 0.5) / 6)
    assert value["MRR@3"] == pytest.approx((1 + 0 + (1 / 2 + 1 / 3) / 2) / 3)
    assert value["NDCG@3"] == pytest.approx((1 + 0 + (1 / math.log2(3) + 1 / 2) / 2) / 3)


def test_as_released_lets_validation_items_compete_at_test():
    best, _, _, model, trainer, test = fitted("FedVLR", protocol="as_released", epochs=2, topk=[50], **SMALL)
    before = [None if items is None else items.clone() for items in test.uid2history_item]
    ours = summary(rank_federation(model.federation, "test", mask_validation=False))
    masked = summary(rank_federation(model.federation, "test"))
    assert trainer.evaluate(test)["ndcg@50"] == pytest.approx(ours["ndcg@50"] / 100, abs=1e-9)
    assert ours["ndcg@50"] != masked["ndcg@50"]
    after = test.uid2history_item
    assert all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize(
    "settings", [{"eval_args": RATIO}, {"benchmark_filename": ["train", "valid", "test"]}], ids=["ratio", "fixed"]
)
@pytest.mark.parametrize("name", ["VBPR", "BM3"])
def test_splits_of_recbole_use_its_own_dataset(shop, name, settings):
    _, data, (train, valid, test), model, trainer = assembled(
        name, "shop", data_path=str(shop), epochs=2, embedding_size=8, **settings
    )
    assert type(data) is Dataset
    best, result = trainer.fit(train, valid, verbose=False, saved=False)
    assert best == result["mrr@10"] and trainer.evaluate(test)["hit@10"] > 0
    with pytest.raises(ConfigError, match="data_root is read by our data set.*data_path"):
        assembled(name, "shop", data_root=str(shop), **settings)


@pytest.mark.parametrize("name", ["VBPR", "BM3", "MGCN", "PGL"])
def test_recboles_own_dataset_with_features_by_preload_weight(shop, name):
    """Item features as RecBole documents them: a further file and `preload_weight`."""
    vectors = np.random.default_rng(1).normal(size=(40, 4))
    lines = "".join(f"i{n}\t{' '.join(f'{x:.4f}' for x in row)}\n" for n, row in enumerate(vectors))
    (shop / "shop" / "shop.itemV").write_text("vid:token\tvemb:float_seq\n" + lines)
    config = Config(
        name,
        "shop",
        None,
        {
            "data_path": str(shop), "epochs": 1, "embedding_size": 8, "additional_feat_suffix": ["itemV"],
            "load_col": {"inter": ["user_id", "item_id", "timestamp"], "itemV": ["vid", "vemb"]},
            "alias_of_item_id": ["vid"], "preload_weight": {"vid": "vemb"}, "eval_args": RATIO,
        },
    )  # fmt: skip
    data = Dataset(config)
    train, valid, _ = data_preparation(config, data)
    model = get_model(name)(config, train._dataset)
    (modality,) = model.modalities
    third = data.token2id("item_id", "i3") - 1
    assert np.allclose(modality.matrix[third], vectors[3], atol=1e-4)
    best, _ = get_trainer(None, name)(config, model).fit(train, valid, verbose=False, saved=False)
    assert best >= 0


def test_sampled_candidates_with_a_centralized_model(shop):
    *_, trainer, test = fitted("BM3", "shop", data_path=str(shop), epochs=1, eval_args=LEAVE_ONE_OUT | {"mode": "uni5"})
    assert trainer.evaluate(test)["hit@10"] == 1.0  # six candidates


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"valid_metric": "NDCG@7"}, "'ndcg@7' is not among what is evaluated"),
        ({"embeding_size": 7}, "unknown configuration key 'embeding_size'.*Did you mean 'embedding_size'"),
        ({"protocol": "as_released"}, "protocol 'as_released' is of federated rows"),
    ],
)
def test_wrong_settings_of_centralized_models_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        fitted("VBPR", epochs=1, **settings)


def test_recboles_resume_is_refused_with_the_way_out(tmp_path):
    for name in ("FedVLR", "VBPR"):
        *_, trainer = assembled(name)
        with pytest.raises(ConfigError, match="cannot go on from 'x.pth'.*model_file"):
            trainer.resume_checkpoint("x.pth")


@pytest.mark.parametrize("name", ["FedVLR", "VBPR", "BM3", "MGCN", "PGL"])
def test_recboles_top_k_of_a_user(name):
    """Best unmasked items first; nothing of the history, no padding."""
    settings = SMALL if name == "FedVLR" else {}
    _, data, (train, valid, test), model, trainer = assembled(name, epochs=1, embedding_size=16, **settings)
    trainer.fit(train, valid, verbose=False, saved=False)
    users = np.array([3, 1])
    scores, items = full_sort_topk(users, model, test, 5)
    assert items.shape == (2, 5) and (items > 0).all() and (scores[:, :-1] >= scores[:, 1:]).all()
    for user, shown in zip(users, items, strict=True):
        assert not set(shown.tolist()) & set(test.uid2history_item[user].tolist())
    assert data.id2token("item_id", items).shape == (2, 5)


@pytest.mark.parametrize("name", ["FedVLR", "VBPR"])
def test_metrics_beyond_ranks_are_reported(name):
    settings = SMALL if name == "FedVLR" else {}
    asked = {
        "metrics": ["NDCG", "ItemCoverage", "AveragePopularity"],
        "valid_metric": "NDCG@10",
        "topk": [10],
        "epochs": 1,
    }
    _, _, _, _, trainer, test = fitted(name, **asked, **settings)
    assert 0 < trainer.evaluate(test)["itemcoverage@10"] <= 1 and trainer.evaluate(test)["averagepopularity@10"] > 0


def test_a_data_path_that_is_no_folder_is_a_data_error():
    with pytest.raises(DataError, match="not a folder"):
        assembled("BM3", data_path="nowhere")
