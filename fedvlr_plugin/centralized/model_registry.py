"""Which centralized models there are: ours, and every general model of the installed RecBole."""

from __future__ import annotations

from importlib import import_module

from fedvlr_plugin.errors import ConfigError, unknown_name

OURS = {name: f"fedvlr_plugin.centralized.{name.lower()}" for name in ("VBPR", "BM3", "MGCN", "PGL")}


def find_model(name: str) -> type:
    """The class of a model by name, in any capitalisation.

    Raises:
        UnknownNameError: neither we nor RecBole have a general model of that name; the message has the nearest one.
        ConfigError: the model trains with a RecBole trainer of its own, which a row cannot reproduce.
    """
    for ours, module in OURS.items():
        if ours.casefold() == name.casefold():
            found: type = getattr(import_module(module), ours)
            return found
    theirs = recbole_models()
    by_fold = {known.casefold(): known for known in theirs}
    if name.casefold() not in by_fold:
        raise unknown_name(
            "row or model", name, [*OURS, *theirs], "Federated rows: FedAvg, FedAvg+MLP, FedAvg+ours, ..."
        )
    known = by_fold[name.casefold()]
    if hasattr(import_module("recbole.trainer"), f"{known}Trainer"):
        raise ConfigError(
            f"RecBole's {known} needs RecBole's own {known}Trainer (several stages), so it cannot be a row; "
            "run it with recbole.quick_start, or choose another model"
        )
    return theirs[known]


def recbole_models() -> dict[str, type]:
    """RecBole's general models by name, sorted."""
    from fedvlr_plugin.compat import prepare_recbole

    prepare_recbole()
    base = import_module("recbole.model.abstract_recommender").GeneralRecommender
    module = import_module("recbole.model.general_recommender")
    found = {n: c for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base) and c is not base}
    return dict(sorted(found.items()))
