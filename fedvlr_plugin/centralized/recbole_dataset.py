"""Make RecBole's Config and Dataset from a `PreparedData`, with checked keys and this package's ids.

RecBole's ids are those of `PreparedData` plus one. The Dataset holds training pairs only, so that a model cannot read
held-out items.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fedvlr_plugin.centralized.base import CentralizedModel
from fedvlr_plugin.centralized.model_registry import OURS
from fedvlr_plugin.config_files import config_path
from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.recbole.config import FedVLRConfig
from fedvlr_plugin.errors import ConfigError

from recbole.data.dataset import Dataset  # isort: skip
from recbole.utils import FeatureSource, FeatureType  # isort: skip

RUNNERS_OWN = {"epochs": "rounds", "stopping_step": "patience", "seed": "seed", "eval_step": "eval_every"}


class TrainingRows(Dataset):
    """The training pairs of a `PreparedData` as RecBole's Dataset, with `item_features`.

    Args:
        config: RecBole's settings.
        data: the prepared data set.
        rows: users and items of the training pairs, ids from 0, both `[n]`; None for the distinct pairs of the data.
    """

    def __init__(self, config: FedVLRConfig, data: PreparedData, rows: tuple[IntArray, IntArray] | None = None) -> None:
        self._data = data
        self._rows = rows or (data.interactions.train_users, data.interactions.train_items)
        super().__init__(config)
        self._change_feat_format()

    @property
    def item_features(self) -> ItemFeatures:
        """The item features; vector i belongs to RecBole's item i + 1."""
        return self._data.features

    def _load_data(self, token: str, dataset_path: str) -> None:
        users, items = self._rows
        self.inter_feat = pd.DataFrame({self.uid_field: users + 1, self.iid_field: items + 1})
        for field in (self.uid_field, self.iid_field):
            self.set_field_property(field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        self.user_feat = self.item_feat = None

    def _data_filtering(self) -> None:
        """Do nothing: the pairs are final."""

    def _remap_ID_all(self) -> None:
        interactions = self._data.interactions
        for field, tokens in ((self.uid_field, interactions.user_tokens), (self.iid_field, interactions.item_tokens)):
            self.field2id_token[field] = np.array(["[PAD]", *tokens])
            self.field2token_id[field] = {token: i for i, token in enumerate(self.field2id_token[field])}


def make_config(
    model: type, data: PreparedData, params: Mapping[str, object], device: str, dim: int | None = None
) -> FedVLRConfig:
    """Make the Config of a model: RecBole's defaults, then this package's YAML file, then `params`.

    Args:
        model: a class of this package, of RecBole, or a user's own. A user's class may name the keys it reads in the
            class attribute `config_keys`; the defaults of its nearest known base class apply.
        data: the prepared data set.
        params: hyper-parameters by RecBole's or the model's name.
        device: of torch.
        dim: value of `embedding_size` if the model has that key and `params` does not set it.

    Raises:
        ConfigError: a key is unknown (the message suggests the nearest), or the run specification sets it.
    """
    for key, instead in RUNNERS_OWN.items():
        if key in params:
            raise ConfigError(f"'{key}' is not a parameter of the row {model.__name__}; set {instead} of the run")
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in params.items()}
    defaults = _defaults(model)
    known = {key for file in defaults for key in yaml.safe_load(Path(file).read_text()) or {}}
    known |= set(model.Params.model_fields) if issubclass(model, CentralizedModel) else set()
    known |= set(getattr(model, "config_keys", ()))
    base = {"device": device, "benchmark_filename": None}
    config = FedVLRConfig(model, data.name, defaults, {**base, **settings}, known_keys=known)
    if dim is not None and "embedding_size" not in params and config["embedding_size"] is not None:
        config["embedding_size"] = dim
    return config


def _defaults(model: type) -> list[str]:
    """Return the YAML file of the nearest base class, if RecBole's Config does not load it anyway."""
    recbole_files = files("recbole") / "properties" / "model"
    for base in model.__mro__:
        if base.__name__ in OURS and base.__module__ == OURS[base.__name__].module:
            return [config_path(f"model/{base.__name__}")]
        if base.__module__.startswith("recbole.model.") and (recbole_files / f"{base.__name__}.yaml").is_file():
            return [] if base is model else [str(recbole_files / f"{base.__name__}.yaml")]
    return []
