"""Rows of the tables: how a name such as `FedRAP+ours` is taken apart.

A row is a floor that learns nothing (`evaluation.floors`), a centralized closed form (`ItemKNN`, `EASE`), a federated
backbone with a fusion variant (algorithm.md section 5), a federated closed form of one round (`FedEASE`), or any
general model that RecBole knows, ours included, by its name. `A & new-item prior` is row A with a bonus for items that
never occur in training (`evaluation.new_items`).

Checks the names of rows before anything heavy is imported or any work is done.

RecBole's own general models are rows too; their names are read from its files, since importing them costs
seconds and one of them (ray) may fail.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fedvlr_plugin.backbones import BACKBONES, Backbone
from fedvlr_plugin.centralized.model_registry import OURS, CentralizedRow
from fedvlr_plugin.errors import ConfigError, unknown_name
from fedvlr_plugin.evaluation.floors import CONTENT_FLOORS, FLOORS
from fedvlr_plugin.fusion.views import Fusion

YARDSTICKS = ("ItemKNN", "EASE")
ONE_SHOT = ("FedEASE", "FedEASE+content")
NEW_ITEMS = "new-item prior"
REFERENCES = (*FLOORS, *YARDSTICKS, f"EASE & {NEW_ITEMS}")
"""In every table whatever rows are asked for: they cost seconds, and a row that does not beat them shows nothing."""
CLOSED_FORMS = (*REFERENCES, *ONE_SHOT)
"""Without a seed and without settings to search: one run each, the numbers they need chosen by validation inside it."""
NEED_CONTENT = (*CONTENT_FLOORS, "FedEASE+content")
"""Rows that say nothing without item features."""
CENTRALIZED = tuple(OURS)
VARIANTS: dict[str, Fusion] = {"": "none", "MLP": "mlp", "VBPR": "vbpr", "ours": "blfm"}


@dataclass(frozen=True)
class Row:
    """A parsed row name.

    Attributes:
        name: the canonical name.
        kind: `closed_form` is centralized, `one_shot` a federated closed form, `federated` is trained in rounds.
        backbone, fusion: None unless `kind` is `federated`.
        new_items: whether the bonus for new items is added to the scores.
    """

    name: str
    kind: Literal["floor", "closed_form", "one_shot", "federated", "recbole"]
    backbone: str | None = None
    fusion: Fusion | None = None
    new_items: bool = False

    @property
    def base(self) -> str:
        """The name without the bonus for new items."""
        return self.name.removesuffix(f" & {NEW_ITEMS}")

    @property
    def uses_features(self) -> bool:
        """Whether item features can change the result, so that shuffling them is a control."""
        if self.kind == "federated":
            return self.fusion != "none"
        return self.base in (*NEED_CONTENT, *CENTRALIZED)


def parse_row(name: str) -> Row:
    """Take a row name apart, in any capitalisation; the returned name is the canonical one.

    Raises `ConfigError` for an unknown variant or one that the backbone does not support. A name that is
    neither a floor nor a backbone is taken for a RecBole model; RecBole's adapter refuses unknown ones.
    """
    scorer, ampersand, addition = (part.strip() for part in name.partition("&"))
    if ampersand:
        return _with_new_items(parse_row(scorer), name, addition)
    fixed: dict[str, Row] = {floor: Row(floor, "floor") for floor in FLOORS}
    fixed |= {each.casefold(): Row(each, "closed_form") for each in YARDSTICKS}
    fixed |= {each.casefold(): Row(each, "one_shot") for each in ONE_SHOT}
    if name.casefold() in fixed:
        return fixed[name.casefold()]
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


def _with_new_items(row: Row, name: str, addition: str) -> Row:
    if addition.casefold() != NEW_ITEMS:
        raise ConfigError(f"unknown addition '{addition}' in row '{name}'; allowed: A & {NEW_ITEMS}")
    if row.new_items or row.kind in ("floor", "recbole"):
        raise ConfigError(
            f"'{row.name}' takes no {NEW_ITEMS}; rows that do: {', '.join((*YARDSTICKS, *ONE_SHOT))} and federated ones"
        )
    return replace(row, name=f"{row.name} & {NEW_ITEMS}", new_items=True)


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


def rows_with_fusion(fusion: Fusion) -> list[str]:
    """Every backbone with the given fusion, where it supports it, in the table's order."""
    return [row for row in federated_rows() if parse_row(row).fusion == fusion]


def federated_rows() -> list[str]:
    """Every backbone with every fusion it supports, in the table's order."""
    return [row for backbone in BACKBONES.names() for row in rows_of(backbone)]


def known_rows() -> list[str]:
    """The rows of a table by default, in its order: references, centralized, federated."""
    with_prior = [f"{name} & {NEW_ITEMS}" for name in BACKBONES.names() if BACKBONES.get(name).new_items_row]
    return [*REFERENCES, *with_prior, *CENTRALIZED, *ONE_SHOT, *federated_rows()]


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
