"""`fedvlr list`: everything that can be named in a command or a configuration, and the package that each is from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.registry import BUILT_IN, Member, Registry


class Listed(NamedTuple):
    """One name.

    Attributes:
        kind: what it names, in the plural: `backbones`, `rows`, ...
        name: as commands take it.
        origin: package, or folder, that it is from.
    """

    kind: str
    name: str
    origin: str


def listed(data_root: Path | None) -> tuple[list[Listed], list[str]]:
    """Collect all names and what is wrong with installed packages.

    Args:
        data_root: folder of data sets; None: as `data.catalogue.resolve_data_root` finds it.

    Returns:
        The names by kind, and a line for every entry point that cannot be used and every folder that cannot be read.
    """
    from fedvlr_plugin.aggregation.robust import RULES
    from fedvlr_plugin.backbones import BACKBONES
    from fedvlr_plugin.data.source import SOURCES
    from fedvlr_plugin.features.encode import encoders
    from fedvlr_plugin.fusion.operators import VIEWS
    from fedvlr_plugin.reporting.outputs import outputs

    problems: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # broken entry points are listed below
        names = [*_rows(), *_members("backbones", BACKBONES), *_members("views", VIEWS)]
        names += _members("aggregation rules", RULES)
        try:
            names += _data_sets(data_root)
        except FedVLRError as error:
            problems.append(f"data sets: {error}")
        names += [*_members("encoders", encoders()), *_members("outputs", outputs())]
    for registry in (BACKBONES, VIEWS, RULES, SOURCES, encoders(), outputs()):
        problems += registry.problems()
    return names, problems


def lines(data_root: Path | None) -> Iterator[str]:
    """Yield the text of `fedvlr list`: a heading for each kind, then a line for each name with its origin."""
    names, problems = listed(data_root)
    width = max(len(entry.name) for entry in names)
    kind = ""
    for entry in names:
        if entry.kind != kind:
            kind = entry.kind
            yield f"{kind}:"
        yield f"  {entry.name:<{width}}  {entry.origin}"
    for problem in problems:
        yield f"PROBLEM  {problem}"


def _members(kind: str, registry: Registry[Member]) -> list[Listed]:
    return [Listed(kind, name, registry.origin(name)) for name in registry.names()]


def _rows() -> list[Listed]:
    """Rows of the tables by default; RecBole's own models, which are rows too, as one line."""
    from fedvlr_plugin.backbones import BACKBONES
    from fedvlr_plugin.experiment.rows import known_rows, parse_row, recbole_models

    rows = []
    for name in known_rows():
        backbone = parse_row(name).backbone
        rows.append(Listed("rows", name, BUILT_IN if backbone is None else BACKBONES.origin(backbone)))
    return [*rows, Listed("rows", f"({len(recbole_models())} general models)", "recbole")]


def _data_sets(data_root: Path | None) -> list[Listed]:
    from fedvlr_plugin.data.catalogue import available, folders, resolve_data_root
    from fedvlr_plugin.data.source import SOURCES

    root = resolve_data_root(data_root)
    in_folders = folders(root)
    return [
        Listed("data sets", name, f"folder {in_folders[name]}" if name in in_folders else SOURCES.origin(name))
        for name in available(root)
    ]
