"""Rows that are RecBole models: run(spec) end to end, selection, host traps (argv, rounding, litter, global state)."""

import random
import sys

import numpy as np
import pytest
import torch

import fedvlr_plugin
from fedvlr_plugin.api import load_checkpoint
from fedvlr_plugin.centralized.model_registry import find_model, recbole_models
from fedvlr_plugin.config import PROTOCOLS, ModelConfig, Protocol, RunSpec, TrainingConfig
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError, FedVLRError, UnknownNameError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment.run import run

from recbole.model.general_recommender import BPR  # isort: skip

DATA = generated(50, 70, 1200, width=8)
CLEARLY_COLD = generated(30, 200, 400, width=2)


def spec(row, epochs=3, seed=1, protocol="corrected", dim=16, dtype="float32", **params):
    training = TrainingConfig(rounds=epochs)
    model = ModelConfig(dim=dim, params=params)
    return RunSpec(
        dataset=DATA.name, row=row, seed=seed, protocol=PROTOCOLS[protocol], training=training, model=model, dtype=dtype
    )


@pytest.mark.parametrize(
    "row", ["VBPR", "BM3", "MGCN", "PGL", "BPR", "LightGCN", "NeuMF", "Pop", "SLIMElastic", "MultiVAE"]
)
def test_a_row_runs_and_runs_the_same_again(row):
    first, second = (run(spec(row), data=DATA) for _ in range(2))
    assert len(first.test) == DATA.interactions.n_users
    assert (first.test.above == second.test.above).all() and (first.test.tied == second.test.tied).all()
    assert [r.train_loss for r in first.curve] == [r.train_loss for r in second.curve]
    assert len(first.curve) == (1 if row in ("Pop", "SLIMElastic") else 3)
    assert first.resources.samples > 0


@pytest.mark.parametrize("row", sorted(set(recbole_models()) - {"NCL", "RaCT", "RecVAE", "DGCF"}))
def test_every_general_model_of_recbole_is_a_row(row):
    """Without DGCF, which samples more users than a set this small has, and those with several stages."""
    assert len(run(spec(row, 1, dim=64), data=DATA).test) == DATA.interactions.n_users  # ConvNCF needs 64


def test_simplex_gets_as_many_negatives_as_it_is_told():
    assert len(run(spec("SimpleX", 1, negatives=3), data=DATA).test) == DATA.interactions.n_users


def test_another_seed_gives_another_model():
    losses = {run(spec("BM3", 1, seed), data=DATA).curve[0].train_loss for seed in (1, 2, 3)}
    assert len(losses) == 3


@pytest.mark.parametrize("row", ["VBPR", "LightGCN", "Pop"])
def test_the_best_epoch_by_unrounded_validation_ndcg_is_the_one_that_is_kept(row):
    result = run(spec(row, 12, learning_rate=0.3), data=DATA)
    scores = [record.valid["ndcg@50"] for record in result.curve]
    assert row == "Pop" or result.best_round < len(result.curve)  # else the last state would do
    assert result.best_round == 1 + int(np.argmax(scores))
    assert summary(result.valid)["ndcg@50"] == pytest.approx(max(scores), abs=1e-9)  # the state was put back


def test_learning_shows():
    data = prepare("planted")
    untrained = run(spec("BPR", 1, learning_rate=1e-9), data=data)
    trained = run(spec("BPR", 25, learning_rate=0.01), data=data)
    assert summary(trained.valid)["ndcg@50"] > 1.2 * summary(untrained.valid)["ndcg@50"]


def test_patience_counts_validations_without_gain():
    training = TrainingConfig(rounds=50, patience=2)
    result = run(RunSpec(dataset="x", row="Random", training=training), data=DATA)
    assert len(result.curve) == 1  # a closed form has one pass
    frozen = RunSpec(dataset="x", row="BPR", training=training, model=ModelConfig(params={"learning_rate": 1e-12}))
    assert len(run(frozen, data=DATA).curve) <= 6


def test_the_protocol_reaches_masks_and_negatives():
    base = spec("BPR", 2)
    masked = run(base, data=DATA)
    open_mask = base.model_copy(update={"protocol": Protocol(mask_validation_at_test=False)})
    unmasked = run(open_mask, data=DATA)
    assert [r.train_loss for r in masked.curve] == [r.train_loss for r in unmasked.curve]
    assert (unmasked.test.above >= masked.test.above).all() and unmasked.test.above.sum() > masked.test.above.sum()
    released = run(spec("BPR", 2, protocol="as_released"), data=CLEARLY_COLD)
    corrected = run(spec("BPR", 2), data=CLEARLY_COLD)
    assert [r.train_loss for r in corrected.curve] != [r.train_loss for r in released.curve]


@pytest.mark.parametrize("row", ["PGL", "BPR"])
def test_nothing_is_written_and_no_global_state_is_left_behind(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest", "--learning_rate=77", "--seed=77", "--epochs=9"])
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    wanted = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    with_argv = run(spec(row, 2), data=DATA)
    assert (torch.rand(1), random.random(), np.random.rand()) == wanted  # noqa: NPY002
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert [r.train_loss for r in run(spec(row, 2), data=DATA).curve] == [r.train_loss for r in with_argv.curve]
    assert not list(tmp_path.iterdir())


def test_unknown_models_and_keys_are_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'LightGCN'"):
        run(spec("LightGNC"), data=DATA)
    with pytest.raises(ConfigError, match="Did you mean 'n_layers'"):
        run(spec("LightGCN", n_layer=2), data=DATA)
    with pytest.raises(ConfigError, match="Did you mean 'reg_weight'"):
        run(spec("VBPR", reg_weigth=1.0), data=DATA)
    with pytest.raises(ConfigError, match="set patience of the run"):
        run(spec("BPR", stopping_step=3), data=DATA)
    with pytest.raises(ConfigError, match="learning_rate must be a number above 0"):
        run(spec("BPR", learning_rate=0), data=DATA)
    with pytest.raises(ConfigError, match="NCLTrainer"):
        run(spec("NCL"), data=DATA)
    with pytest.raises(ConfigError, match="float32"):
        run(spec("BPR", dtype="float64"), data=DATA)
    with pytest.raises(ConfigError, match="negatives must be a whole number"):
        run(spec("BPR", negatives=0), data=DATA)


def test_a_loss_that_leaves_the_numbers_is_reported():
    with pytest.raises(FedVLRError, match="lower learning_rate"):
        run(spec("BPR", 3, learning_rate=1e38, learner="sgd"), data=DATA)


def test_names_are_found_in_any_capitalisation():
    assert find_model("bpr") is BPR and find_model("lightgcn").__name__ == "LightGCN"
    assert find_model("pgl").__name__ == "PGL"


class MyBPR(BPR):
    """A user's own class, known to nobody."""


def test_one_call_takes_a_class_and_writes_a_checkpoint_that_loads_safely(tmp_path):
    path = tmp_path / "my.pt"
    settings = {"rounds": 2, "dim": 8, "params": {"learning_rate": 0.02}}
    result = fedvlr_plugin.run(MyBPR, DATA, seed=4, settings=settings, checkpoint=path)
    assert result.spec.row == "MyBPR" and len(result.curve) == 2
    again = fedvlr_plugin.run(BPR, DATA, seed=4, settings=settings)
    assert (again.test.above == result.test.above).all()
    loaded_spec, state = load_checkpoint(path)
    assert loaded_spec == result.spec and state["user_embedding.weight"].shape == (51, 8)


def test_one_call_takes_rows_of_every_kind():
    assert fedvlr_plugin.run("popularity", DATA).best_round == 0
    federated = fedvlr_plugin.run("FedAvg", DATA, settings={"rounds": 1, "dim": 8})
    assert federated.spec.row == "FedAvg" and len(federated.curve) == 1
    assert len(fedvlr_plugin.run("bm3", DATA, settings={"rounds": 1}).curve) == 1
    with pytest.raises(ConfigError, match="Did you mean 'rounds'"):
        fedvlr_plugin.run("BM3", DATA, settings={"round": 1})
    with pytest.raises(UnknownNameError, match="Did you mean 'corrected'"):
        fedvlr_plugin.run("BM3", DATA, protocol="corected")
