"""Checks the names of rows before anything heavy is imported or any work is done.

RecBole's own general models are rows too; their names are read from its files, since importing them costs
seconds and one of them (ray) may fail. Imports `rows` and `errors`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from fedvlr_plugin.benchmark.rows import CENTRALIZED, known_rows, parse_row
from fedvlr_plugin.errors import unknown_name


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
