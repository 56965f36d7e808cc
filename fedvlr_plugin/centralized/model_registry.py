"""Find centralized models by name: the four of this package, and every general model of the installed RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from fedvlr_plugin.declarations import Dimension, ProfileRule
from fedvlr_plugin.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class CentralizedRow:
    """The module of a centralized model, and its settings for searches and profiles.

    Attributes:
        module: dotted name of the module; its class has the name of the row.
        search: dimensions of a search beyond the learning rate.
        profile_settings: its settings by profile.
        profile_search: its search settings by profile.
    """

    module: str
    search: tuple[Dimension, ...] = ()
    profile_settings: tuple[ProfileRule, ...] = ()
    profile_search: tuple[ProfileRule, ...] = ()


def _ours(name: str, parameter: str, values: tuple[float, ...], rounds: int, batch: int) -> CentralizedRow:
    """Declare a model of this package: the parameter its authors search, its grid, and epochs and batch size of `quick`."""
    params = {"learning_rate": 0.005, "train_batch_size": batch}
    quick = {"rounds": rounds, "eval_every": rounds // 4, "params": params}
    return CentralizedRow(
        f"fedvlr_plugin.centralized.{name.lower()}",
        (Dimension(parameter, values, ((f"params.{parameter}", 1.0),)),),
        (ProfileRule("quick", quick),),
        (ProfileRule("paper", {"method": "grid", "seeds": 5, "priority": 0}),),
    )


OURS: Mapping[str, CentralizedRow] = {
    "VBPR": _ours("VBPR", "reg_weight", (0.01, 0.1, 1.0), rounds=8, batch=4096),
    "BM3": _ours("BM3", "reg_weight", (0.01, 0.1), rounds=8, batch=4096),
    "MGCN": _ours("MGCN", "cl_loss", (0.001, 0.01, 0.1), rounds=4, batch=1024),
    "PGL": _ours("PGL", "reg_weight", (0.001, 0.1), rounds=8, batch=4096),  # 0.001: as good as off, the default
}


def find_model(name: str) -> type:
    """Return the class of a model.

    Args:
        name: of the model, in any capitalisation.

    Raises:
        UnknownNameError: no general model of this package or of RecBole has that name; the message suggests the nearest.
        ConfigError: the model needs a RecBole trainer of its own, so it cannot be a row.
    """
    for own_name, row in OURS.items():
        if own_name.casefold() == name.casefold():
            model: type = getattr(import_module(row.module), own_name)
            return model
    of_recbole = recbole_models()
    by_fold = {known.casefold(): known for known in of_recbole}
    if name.casefold() not in by_fold:
        raise unknown_name(
            "row or model", name, [*OURS, *of_recbole], "Federated rows: FedAvg, FedAvg+MLP, FedAvg+ours, ..."
        )
    known = by_fold[name.casefold()]
    if hasattr(import_module("recbole.trainer"), f"{known}Trainer"):
        raise ConfigError(
            f"RecBole's {known} needs RecBole's own {known}Trainer (several stages), so it cannot be a row; "
            "run it with recbole.quick_start, or choose another model"
        )
    return of_recbole[known]


def recbole_models() -> dict[str, type]:
    """Return RecBole's general models by name, sorted."""
    from fedvlr_plugin.compat import prepare_recbole

    prepare_recbole()
    base = import_module("recbole.model.abstract_recommender").GeneralRecommender
    module = import_module("recbole.model.general_recommender")
    models = {n: c for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base) and c is not base}
    return dict(sorted(models.items()))
