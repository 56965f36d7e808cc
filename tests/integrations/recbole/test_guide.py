"""Every block of recbole_configs/README.md runs, in its order, in an empty folder; its yaml is heard."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers.paths import ROOT

from fedvlr_plugin.data.recbole.loader import open_dataset
from fedvlr_plugin.integrations.recbole.model import FedVLR

GUIDE = (ROOT / "recbole_configs" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
TUNING = [text for text in PYTHON if "HyperTuning" in text]


def executed(blocks, folder):
    if subprocess.run([sys.executable, "-c", "import recbole.quick_start"], capture_output=True).returncode != 0:
        pytest.skip("recbole.quick_start cannot be imported here (it needs numpy<2 and setuptools<81)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_blocks_are_python_yaml_or_output():
    assert {language for language, _ in BLOCKS} == {"python", "yaml", "text"} and len(TUNING) == 1
    assert len(PYTHON[0].splitlines()) <= 13


def test_the_python_blocks_run(tmp_path):
    shown = executed([text for text in PYTHON if text not in TUNING], tmp_path)
    assert "ndcg@10" in shown and len(re.findall(r"'i\d+'", shown)) == 10


def test_hypertuning_runs(tmp_path):
    if importlib.util.find_spec("hyperopt") is None:
        pytest.skip("hyperopt is not installed (the extra hyperopt)")
    shown = executed([PYTHON[0], *TUNING], tmp_path)
    assert re.search(r"\{'embedding_size': 16, 'learning_rate': 0\.0[15]\} 0\.\d+", shown)


def test_the_yaml_is_heard(tmp_path):
    (text,) = (text for language, text in BLOCKS if language == "yaml")
    dataset = open_dataset("planted", None, FedVLR, yaml.safe_load(text))
    spec = FedVLR(dataset.config, dataset.build()[0]).spec
    assert (spec.row, spec.training.rounds, spec.training.participation) == ("FedRAP+ours", 20, 0.5)
    assert spec.training.server_lr_id == 0.03 and spec.model.views == ("sum", "gate")
