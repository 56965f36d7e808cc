"""Each shipped data set yaml: found by name, a typed comment on every line, keys that the Config knows."""

import re
from pathlib import Path

import pytest
import yaml

from fedvlr_plugin.config_files import config_names, config_path
from fedvlr_plugin.data.recbole.config import FedVLRConfig
from fedvlr_plugin.data.recbole.loader import AnyModel, open_dataset
from fedvlr_plugin.data.statistics import table1
from fedvlr_plugin.errors import ConfigError, UnknownNameError

DATASETS = [name.removeprefix("dataset/") for name in config_names() if name.startswith("dataset/")]


def test_every_data_set_of_table_1_has_one():
    assert set(table1()) | {"ml-100k", "planted"} == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_every_line_says_its_type_and_meaning(name):
    head, *lines = Path(config_path(f"dataset/{name}")).read_text(encoding="utf-8").splitlines()
    assert head.startswith("# ")
    for line in lines:
        assert re.search(r"\S+: ?.* # \([a-z ]+\) [A-Z].*\.$", line), line


@pytest.mark.parametrize("name", DATASETS)
def test_every_key_is_known_and_the_values_are_the_defaults(name):
    config = FedVLRConfig(AnyModel, name, [config_path(f"dataset/{name}")])
    bare = FedVLRConfig(AnyModel, name)
    for key in yaml.safe_load(Path(config_path(f"dataset/{name}")).read_text(encoding="utf-8")):
        assert config[key] == bare[key], key


def test_the_file_opens_the_data_set_and_an_unknown_key_is_refused(tmp_path):
    dataset = open_dataset("planted", None, AnyModel)
    config = FedVLRConfig(AnyModel, "planted", [config_path("dataset/planted")])
    assert type(dataset)(config).prepared.fingerprint == dataset.prepared.fingerprint
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("keep_duplicate: True\n")
    with pytest.raises(ConfigError, match="unknown configuration key 'keep_duplicate'.*Did you mean 'keep_duplicates'"):
        FedVLRConfig(AnyModel, "planted", [str(wrong)])
    with pytest.raises(UnknownNameError, match="Did you mean 'planted'"):
        config_path("dataset/plantd")
