"""Data sets by name, for the runners: a thin face over the catalogue, imported late.

Imports the data room and RecBole's adapter when a function is called, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import unknown_name

if TYPE_CHECKING:
    from fedvlr_plugin.data.prepared import PreparedData


def default(option: Path | None) -> list[str]:
    """All data sets under the data root, and ml-100k."""
    from fedvlr_plugin.data.catalogue import default_datasets, resolve_data_root

    return default_datasets(resolve_data_root(option))


def check(name: str, option: Path | None) -> str:
    """The canonical name; raises `UnknownNameError` with the nearest one."""
    from fedvlr_plugin.data.catalogue import available, resolve_data_root

    root = resolve_data_root(option)
    names = available(root)
    by_fold = {known.casefold(): known for known in names}
    if name.casefold() not in by_fold:
        where = f"Looked in '{root}'" if root else "No data root was given"
        raise unknown_name("data set", name, names, f"{where}; name another with --data-root DIR or FEDVLR_DATA.")
    return by_fold[name.casefold()]


def load(name: str, option: Path | None) -> PreparedData:
    """Reads and prepares a data set; raises `DataError` for what is wrong in its files."""
    from fedvlr_plugin.data.catalogue import resolve_data_root
    from fedvlr_plugin.integrations.recbole.open import prepare

    return prepare(name, resolve_data_root(option))
