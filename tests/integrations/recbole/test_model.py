"""FedVLR inside RecBole: its Config, Dataset, loaders and evaluator; its traps; agreement of all numbers."""

import os
import sys

import pytest
import torch

from fedvlr_plugin.data.recbole.loader import AnyModel, open_dataset
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment.run import run
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.integrations.recbole.model import FedVLR
from fedvlr_plugin.integrations.recbole.trainer import FedVLRTrainer

from recbole.data import data_preparation  # isort: skip
from recbole.data.interaction import Interaction  # isort: skip

SETTINGS = {"rounds": 3, "local_epochs": 1, "participation": 0.3, "seed": 3, "dim": 16}


def trained(folder, row, **more):
    dataset = open_dataset(
        "planted", None, FedVLR, {"row": row, "checkpoint_dir": str(folder / "ck"), **SETTINGS, **more}
    )
    train, valid, test = data_preparation(dataset.config, dataset)
    model = FedVLR(dataset.config, train._dataset)
    trainer = FedVLRTrainer(dataset.config, model)
    best, reported = trainer.fit(train, valid, verbose=False, saved=False)
    return model, trainer, best, reported, (train, valid, test)


@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP", "FedNCF+MLP"])
def test_recboles_evaluator_gives_our_numbers(tmp_path, row):
    model, trainer, best, reported, (_, _, test) = trained(tmp_path, row)
    result = trainer.evaluate(test)
    ours = summary(rank_federation(model.federation, "test"))
    assert result["hit@50"] == pytest.approx(ours["hr@50"] / 100, abs=1e-9)
    assert result["ndcg@50"] == pytest.approx(ours["ndcg@50"] / 100, abs=1e-9)
    assert reported["ndcg@50"] == pytest.approx(best, abs=1e-9)


def test_it_is_the_same_run_as_run_spec(tmp_path):
    model, trainer, *_ = trained(tmp_path, "FCF+ours")
    again = run(model.spec, data=model.federation.data)
    assert again.best_round == trainer.fitted.best_round
    ranks = rank_federation(model.federation, "test")
    assert (ranks.above == again.test.above).all() and (ranks.tied == again.test.tied).all()


@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP"])
def test_checkpoints_bring_shared_and_private_state_back(tmp_path, row):
    model, trainer, _, _, (train, _, test) = trained(tmp_path, row)
    first, second = trainer.save(), trainer.save()
    assert first != second
    fresh = FedVLRTrainer(trainer.config, FedVLR(trainer.config, train._dataset))
    assert fresh.evaluate(test) != trainer.evaluate(test)
    assert fresh.evaluate(test, model_file=str(first)) == trainer.evaluate(test)


def test_predict_agrees_with_full_sort(tmp_path):
    model, _, _, _, (_, _, test) = trained(tmp_path, "FedAvg+ours")
    batch = next(iter(test))[0][:7]
    scores = model.full_sort_predict(batch).view(7, -1)
    items = torch.arange(1, 8)
    batch.update(Interaction({"item_id": items}))
    assert torch.allclose(model.predict(batch), scores[torch.arange(7), items], atol=1e-6)
    assert model.predict(batch[:1]).shape == (1,)
    assert torch.isinf(scores[:, 0]).all()


def test_nothing_of_the_host_is_touched(tmp_path, monkeypatch):
    """Own argv, working directory, visible devices and random state stay as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest", "--seed=77", "--epochs=nonsense"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    state = torch.get_rng_state()
    model, *_ = trained(tmp_path, "FedAvg")
    assert model.spec.seed == 3
    assert os.listdir(tmp_path) == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"client_lrr": 0.1}, "unknown configuration key 'client_lrr'.*Did you mean 'client_lr'"),
        ({"client_lr": 0}, "client_lr.*greater than 0"),
        ({"row": "FCF+VBPR"}, "does not support the fusion 'VBPR'"),
        ({"row": "FedAvg+our"}, "unknown fusion 'our'"),
        ({"row": "BPR"}, "is not federated"),
        ({"views": ["sum", "gates"]}, "unknown view operator 'gates'.*Did you mean 'gate'"),
        ({"params": {"lam": 0.1}}, "unknown key 'lam'|Extra inputs|not permitted"),
        ({"row": "FedNCF", "dim": 10}, "multiple of 4"),
        ({"row": "FedRAP", "memory_budget": 10}, "too small"),
        ({"protocol": "corected"}, "protocol 'corected' is not known"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises((ConfigError, KeyError), match=message) as caught:
        dataset = open_dataset("planted", None, FedVLR, settings)
        FedVLR(dataset.config, dataset)
    assert "\n" not in str(caught.value)


def test_another_data_set_class_is_refused(tmp_path):
    dataset = open_dataset("planted", None, AnyModel)

    class Plain:
        def __getattr__(self, name):
            return getattr(dataset, name)

    with pytest.raises(ConfigError, match="needs a FedVLRDataset"):
        FedVLR(dataset.config, Plain())


def test_a_model_of_the_sequential_engine_has_a_state_dict(tmp_path):
    """It goes through RecBole's checkpoint file and scores as before."""
    small = {"engine": "sequential", "rounds": 1, "participation": 0.05}
    model, trainer, _, _, (train, _, _) = trained(tmp_path, "FedRAP+ours", **small)
    assert any(name.endswith("head.theta") for name in model.state_dict()["_extra_state"])
    saved = torch.load(trainer.save(), weights_only=False)["state_dict"]
    fresh = FedVLR(trainer.config, train._dataset)
    users = torch.arange(20)
    expected = model.federation.score(users)
    assert not torch.equal(fresh.federation.score(users), expected)
    fresh.load_state_dict(saved)
    assert torch.equal(fresh.federation.score(users), expected)
