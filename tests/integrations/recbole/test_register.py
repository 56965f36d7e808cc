"""`register()` and RecBole's own quick start, unpatched: names, refusals, checkpoints, evaluation."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT

import fedvlr_plugin
from fedvlr_plugin.centralized.bm3 import BM3
from fedvlr_plugin.centralized.trainable import make_scorer
from fedvlr_plugin.config_files import config_path
from fedvlr_plugin.data.recbole.loader import open_dataset
from fedvlr_plugin.errors import ConfigError, UnknownNameError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import rank_positives
from fedvlr_plugin.integrations.recbole.trainer import CentralizedTrainer

from recbole.data import data_preparation  # isort: skip
from recbole.utils import get_model, get_trainer  # isort: skip

NAMES = ("FedVLR", "VBPR", "BM3", "MGCN", "PGL")
ADDED = [("recbole.data.dataset", f"{n}Dataset") for n in NAMES] + [("recbole.trainer", f"{n}Trainer") for n in NAMES]


@pytest.fixture
def clean(monkeypatch):
    """RecBole as if nobody had registered anything, put back afterwards."""
    for module, name in ADDED:
        monkeypatch.delattr(import_module(module), name, raising=False)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, f"recbole.model.general_recommender.{name.lower()}", raising=False)
    yield monkeypatch
    fedvlr_plugin.register()


def test_nothing_is_registered_at_import():
    code = (
        "import sys, recbole.data.dataset, recbole.trainer, fedvlr_plugin.api, fedvlr_plugin.centralized.trainable\n"
        "import fedvlr_plugin.integrations.recbole.register\n"
        f"print([n for m, n in {ADDED!r} if hasattr(sys.modules[m], n)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_register_is_idempotent_and_names_are_found(clean):
    assert fedvlr_plugin.register() == fedvlr_plugin.register() == NAMES
    assert get_model("BM3") is BM3 and get_model("FedVLR").__name__ == "FedVLR"
    assert get_trainer(None, "PGL") is CentralizedTrainer


@pytest.mark.parametrize("module, name", [("recbole.trainer", "PGLTrainer"), ("recbole.data.dataset", "BM3Dataset")])
def test_a_name_that_is_not_ours_is_not_overwritten(clean, module, name):
    theirs = type("Theirs", (), {})
    clean.setattr(import_module(module), name, theirs, raising=False)
    with pytest.raises(ConfigError, match=f"{name}.*not ours"):
        fedvlr_plugin.register()
    assert getattr(import_module(module), name) is theirs
    assert not hasattr(import_module("recbole.trainer"), "VBPRTrainer")  # nothing half-registered
    clean.delattr(import_module(module), name)


def test_a_module_that_is_not_ours_is_not_overwritten(clean):
    clean.setitem(sys.modules, "recbole.model.general_recommender.mgcn", import_module("json"))
    with pytest.raises(ConfigError, match="already has a model 'MGCN'"):
        fedvlr_plugin.register()
    clean.delitem(sys.modules, "recbole.model.general_recommender.mgcn")


def prepared(folder, **more):
    settings = {"checkpoint_dir": str(folder / "kept"), "epochs": 3, "seed": 5, "train_neg_sample_args": None, **more}
    settings["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": 1}
    dataset = open_dataset("planted", None, BM3, settings, tuple(BM3.Params.model_fields))
    train, valid, test = data_preparation(dataset.config, dataset)
    model = BM3(dataset.config, train._dataset)
    return dataset, model, CentralizedTrainer(dataset.config, model), (train, valid, test)


def test_recboles_evaluator_gives_our_numbers_and_nothing_is_littered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest", "--epochs=1", "--embedding_size=2"])
    dataset, model, trainer, (train, valid, test) = prepared(tmp_path)
    seen = []
    best, metrics = trainer.fit(train, valid, verbose=False, saved=False, callback_fn=lambda *a: seen.append(a))
    assert [epoch for epoch, _ in seen] == [0, 1, 2] and model.params.embedding_size == 64
    assert best == max(score for _, score in seen) == metrics["ndcg@50"]
    score = make_scorer(model, dataset.config, dataset.prepared.interactions.n_items)
    ours = summary(rank_positives(score, dataset.prepared.interactions, "test"))
    theirs = trainer.evaluate(test)
    assert theirs["ndcg@50"] == pytest.approx(ours["ndcg@50"] / 100, abs=1e-9)
    assert theirs["hit@50"] == pytest.approx(ours["hr@50"] / 100, abs=1e-9)
    assert not list(tmp_path.iterdir())


def test_metrics_are_not_rounded_before_they_are_compared(tmp_path):
    _, _, trainer, (train, valid, _) = prepared(tmp_path, metric_decimal_place=2)
    best, _ = trainer.fit(train, valid, verbose=False, saved=False)
    assert best != pytest.approx(round(best, 4), abs=1e-9)


def test_two_checkpoints_of_one_second_do_not_overwrite_each_other(tmp_path):
    _, model, trainer, _ = prepared(tmp_path)
    first = trainer.save("a")
    with torch.no_grad():
        model.user.zero_()
    assert trainer.save("a") != first and torch.load(first, weights_only=False)["state_dict"]["user"].any()


def test_a_data_set_object_can_be_built_twice(tmp_path):
    dataset, *_ = prepared(tmp_path)
    first, second = (data_preparation(dataset.config, dataset)[0] for _ in range(2))
    assert len(first._dataset) == len(second._dataset)


QUICK = """
import glob, json, sys
import fedvlr_plugin
fedvlr_plugin.register()
try:
    from recbole.quick_start import load_data_and_model, run_recbole
except ImportError:
    sys.exit("cannot import recbole.quick_start")
from recbole.utils import get_trainer
from fedvlr_plugin.config_files import config_path
answers = []
for model in ("BM3", "FedVLR"):
    files = [config_path("dataset/ml-100k")] + ([config_path("model/BM3")] if model == "BM3" else [])
    small = {"epochs": 1, "rounds": 1, "local_epochs": 1, "participation": 0.2, "train_batch_size": 16384,
             "eval_batch_size": 2**22, "state": "ERROR", "show_progress": False, "embedding_size": 16, "dim": 16,
             "checkpoint_dir": f"kept-{model}"}
    result = run_recbole(model=model, dataset="ml-100k", config_file_list=files, config_dict=small)
    (saved,) = glob.glob(f"kept-{model}/*.pth")
    config, loaded, dataset, train, valid, test = load_data_and_model(saved)
    again = get_trainer(config["MODEL_TYPE"], config["model"])(config, loaded).evaluate(test)
    answers.append([type(loaded).__name__, dict(result["test_result"]), dict(again)])
print(json.dumps(answers))
"""


def test_recboles_quick_start_runs_our_models_and_loads_them_back(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    done = subprocess.run(
        [sys.executable, "-c", QUICK], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    if "cannot import recbole.quick_start" in done.stderr:
        pytest.skip("recbole.quick_start cannot be imported here (it needs numpy<2 and setuptools<81)")
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    assert [answer[0] for answer in answers] == ["BM3", "FedVLR"]
    for _, first, again in answers:
        assert first == pytest.approx(again, abs=1e-9) and first["hit@50"] > 0


def test_configurations_are_found_by_name():
    assert Path(config_path("bm3")).name == "BM3.yaml" and Path(config_path("dataset/ku.yaml")).name == "ku.yaml"
    with pytest.raises(UnknownNameError, match="Did you mean 'BM3'"):
        config_path("BM33")
