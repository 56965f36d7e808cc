"""Rows of the tables: how a name such as `FedRAP+ours` is taken apart.
A row is a floor (`chance`, `popularity`, `cold-first`), a federated backbone with a fusion variant
(algorithm.md section 5), or any general model that RecBole knows, ours included, by its name.

Checks the names of rows before anything heavy is imported or any work is done.

RecBole's own general models are rows too; their names are read from its files, since importing them costs
seconds and one of them (ray) may fail.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fedvlr_plugin.backbones import BACKBONES, Backbone
from fedvlr_plugin.centralized.model_registry import OURS, CentralizedRow
from fedvlr_plugin.errors import ConfigError, unknown_name
from fedvlr_plugin.fusion.views import Fusion

FLOORS = ("chance", "popularity", "cold-first")
CENTRALIZED = tuple(OURS)
VARIANTS: dict[str, Fusion] = {"": "none", "MLP": "mlp", "VBPR": "vbpr", "ours": "blfm"}


@dataclass(frozen=True)
class Row:
    """A parsed row name. `backbone` and `fusion` are None unless `kind` is `federated`."""

    name: str
    kind: Literal["floor", "federated", "recbole"]
    backbone: str | None = None
    fusion: Fusion | None = None


def parse_row(name: str) -> Row:
    """Takes a row name apart, in any capitalisation; the returned name is the canonical one.

    Raises `ConfigError` for an unknown variant or one that the backbone does not support. A name that is
    neither a floor nor a backbone is taken for a RecBole model; RecBole's adapter refuses unknown ones.
    """
    for floor in FLOORS:
        if name.casefold() == floor:
            return Row(floor, "floor")
    head, _, suffix = name.partition("+")
    if not suffix and head.casefold() not in {b.casefold() for b in BACKBONES.names()}:
        canonical = {c.casefold(): c for c in CENTRALIZED}.get(name.casefold(), name)
        return Row(canonical, "recbole")
    backbone = BACKBONES.canonical(head)
    by_fold = {variant.casefold(): variant for variant in VARIANTS}
    if suffix.casefold() not in by_fold:
        allowed = ", ".join(f"{backbone}+{variant}" for variant in VARIANTS if variant)
        raise ConfigError(f"unknown fusion '{suffix}' in row '{name}'; allowed: {backbone}, {allowed}")
    variant = by_fold[suffix.casefold()]
    supported = BACKBONES.get(backbone).fusions
    if VARIANTS[variant] not in supported:
        allowed = ", ".join(rows_of(backbone))
        raise ConfigError(f"backbone '{backbone}' does not support the fusion '{variant}'; its rows: {allowed}")
    return Row(f"{backbone}+{variant}" if variant else backbone, "federated", backbone, VARIANTS[variant])


NOTHING_DECLARED = CentralizedRow("")


def declared(row: Row) -> type[Backbone] | CentralizedRow:
    """Find what a row declares about searches and profiles.

    Args:
        row: a parsed row.

    Returns:
        The backbone's class, or the entry of a centralized model of ours; for floors and RecBole's own models an
        entry that declares nothing.
    """
    if row.backbone is not None:
        return BACKBONES.get(row.backbone)
    return OURS.get(row.name, NOTHING_DECLARED)


def rows_of(backbone: str) -> list[str]:
    """The row names of one backbone, in the table's order."""
    supported = BACKBONES.get(backbone).fusions
    return [f"{backbone}+{v}" if v else backbone for v, fusion in VARIANTS.items() if fusion in supported]


def federated_rows() -> list[str]:
    """Every backbone with every fusion it supports, in the table's order."""
    return [row for backbone in BACKBONES.names() for row in rows_of(backbone)]


def known_rows() -> list[str]:
    """All rows with a name of their own, in the table's order: floors, centralized, federated."""
    return [*FLOORS, *CENTRALIZED, *federated_rows()]


def check_rows(names: Iterable[str]) -> list[str]:
    """Canonical names of the rows, in order, each once.

    Raises:
        UnknownNameError: a name is neither a row of ours nor a general model of the installed RecBole.
        ConfigError: the backbone does not support the fusion.
    """
    result = []
    for name in names:
        row = parse_row(name)
        if row.kind == "recbole" and row.name not in CENTRALIZED:
            models = {model.casefold(): model for model in recbole_models()}
            if name.casefold() not in models:
                hint = f"Also: any general model of RecBole ({', '.join(sorted(models.values())[:4])}, ...)."
                raise unknown_name("row", name, known_rows(), hint)
            result.append(models[name.casefold()])
        else:
            result.append(row.name)
    return list(dict.fromkeys(result))


@functools.cache
def recbole_models() -> tuple[str, ...]:
    """Class names of RecBole's general recommenders, as RecBole looks them up (file name = class in lower case)."""
    spec = find_spec("recbole")
    if spec is None or spec.submodule_search_locations is None:
        return ()
    names = []
    for folder in spec.submodule_search_locations:
        for file in sorted((Path(folder) / "model" / "general_recommender").glob("*.py")):
            classes = re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            names += [name for name in classes if name.lower() == file.stem]
    return tuple(names)
