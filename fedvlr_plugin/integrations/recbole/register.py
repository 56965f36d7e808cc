"""Register this package's models with RecBole by name, so that `run_recbole(model="FedVLR")` works.

RecBole has no registry: it finds a model as a module under `recbole.model.general_recommender`, its Dataset and
Trainer as attributes `<Model>Dataset` and `<Model>Trainer` (`recbole.md` section 2). Nothing happens at import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import cast

from fedvlr_plugin.centralized.model_registry import OURS
from fedvlr_plugin.errors import ConfigError

PACKAGE = "recbole.model.general_recommender"


def register() -> tuple[str, ...]:
    """Register FedVLR, VBPR, BM3, MGCN and PGL with RecBole; another call changes nothing.

    RecBole's checkpoints pickle its Config, which torch >= 2.6 refuses to load. The classes in them are declared safe to
    torch, so that `load_data_and_model` works. Load only checkpoints that you trust.

    Returns:
        The registered names.

    Raises:
        ConfigError: a name is taken by something else; then nothing is registered.

    >>> register()
    ('FedVLR', 'VBPR', 'BM3', 'MGCN', 'PGL')
    >>> from recbole.utils import get_model
    >>> get_model("FedVLR").__name__
    'FedVLR'
    """
    from fedvlr_plugin.compat import prepare_recbole

    prepare_recbole()
    from fedvlr_plugin.data.recbole.centralized_dataset import CentralizedDataset
    from fedvlr_plugin.data.recbole.dataset import FedVLRDataset
    from fedvlr_plugin.integrations.recbole.trainer import CentralizedTrainer, FedVLRTrainer

    modules = {"FedVLR": "fedvlr_plugin.integrations.recbole.model", **{name: row.module for name, row in OURS.items()}}
    trainers = {name: FedVLRTrainer if name == "FedVLR" else CentralizedTrainer for name in modules}
    classes = {name: FedVLRDataset if name == "FedVLR" else CentralizedDataset for name in modules}
    datasets, hosts = import_module("recbole.data.dataset"), import_module("recbole.trainer")
    models = {name: import_module(module) for name, module in modules.items()}
    for name, model in models.items():
        _check_module(name, model)
        _check_attribute(datasets, f"{name}Dataset", classes[name])
        _check_attribute(hosts, f"{name}Trainer", trainers[name])
    for name, model in models.items():
        sys.modules[f"{PACKAGE}.{name.lower()}"] = model
        setattr(datasets, f"{name}Dataset", classes[name])
        setattr(hosts, f"{name}Trainer", trainers[name])
    _declare_safe([getattr(model, name) for name, model in models.items()])
    return tuple(models)


def _check_module(name: str, ours: ModuleType) -> None:
    path = f"{PACKAGE}.{name.lower()}"
    if sys.modules.get(path) is ours:
        return
    if path in sys.modules or importlib.util.find_spec(path) is not None:
        raise ConfigError(f"RecBole already has a model '{name}' at {path}, which is not ours; it is left as it is")


def _check_attribute(module: ModuleType, name: str, ours: type) -> None:
    taken = getattr(module, name, ours)
    if taken is not ours:
        raise ConfigError(f"{module.__name__}.{name} is {taken!r}, which is not ours; it is left as it is")


def _declare_safe(models: list[type]) -> None:
    """Declare the classes in RecBole's checkpoints safe to torch: Config, model, enumerations, the YAML loader."""
    import numpy as np
    import torch
    import yaml
    from recbole.config import Config
    from recbole.utils import EvaluatorType, InputType, ModelType

    from fedvlr_plugin.data.recbole.config import FedVLRConfig

    rebuild = cast(Callable[..., object], np.float64(0.0).__reduce__()[0])  # its module moved in numpy 2
    numbers: list[Callable[..., object]] = [np.float64, np.dtype, type(np.dtype(np.float64)), rebuild]
    torch.serialization.add_safe_globals([Config, FedVLRConfig, EvaluatorType, InputType, ModelType])
    torch.serialization.add_safe_globals([yaml.FullLoader, *numbers, *models])
