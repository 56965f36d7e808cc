"""Data sets by name, for the runners: a thin face over the catalogue, imported late.

Imports the data room and RecBole's adapter when a function is called, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvlr_plugin.data.prepared import PreparedData


def default(data_root: Path | None) -> list[str]:
    """All data sets under the data root, and ml-100k."""
    from fedvlr_plugin.data.catalogue import default_datasets

    return default_datasets(data_root)


def check(name: str, data_root: Path | None) -> str:
    """The canonical name; raises `UnknownNameError` with the nearest one."""
    from fedvlr_plugin.data.catalogue import canonical_name

    return canonical_name(name, data_root)


def load(name: str, data_root: Path | None) -> PreparedData:
    """Reads and prepares a data set; raises `DataError` for what is wrong in its files."""
    from fedvlr_plugin.data.catalogue import resolve_data_root
    from fedvlr_plugin.integrations.recbole.open import prepare

    return prepare(name, resolve_data_root(data_root))
