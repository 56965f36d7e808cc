"""Which data sets there are and where: the packaged ml-100k, `planted`, and every folder under the data root.

The data root is the option, else the environment's `FEDVLR_DATA`, else `data/` in the working directory if it is
there.
"""

from __future__ import annotations

import os
from pathlib import Path

from fedvlr_plugin.data.atomic_files import AtomicSource, PackagedMovieLens
from fedvlr_plugin.data.released_layout import ReleasedSource
from fedvlr_plugin.data.source import Source
from fedvlr_plugin.data.synthetic import PlantedSource
from fedvlr_plugin.errors import DataError, unknown_name
from fedvlr_plugin.files import UNFINISHED

ROOT_VARIABLE = "FEDVLR_DATA"
DEFAULT_ROOT = Path("data")
BUILT_IN = ("ml-100k", "planted")


def resolve_data_root(option: Path | None = None) -> Path | None:
    """The data root, None when there is none; raises `DataError` when a named one is no folder."""
    named = os.environ.get(ROOT_VARIABLE)
    for root, how in ((option, "--data-root"), (Path(named) if named else None, ROOT_VARIABLE)):
        if root is not None:
            if not root.is_dir():
                raise DataError(f"{how}: '{root}' is not a folder; name the folder that holds ku/, ml/, ...")
            return root
    return DEFAULT_ROOT if DEFAULT_ROOT.is_dir() else None


def folders(data_root: Path | None = None) -> dict[str, Path]:
    """Data set folders under the data root by name, sorted."""
    root = resolve_data_root(data_root)
    if root is None:
        return {}
    found = sorted(f for f in root.iterdir() if f.is_dir() and (ReleasedSource.found_in(f) or AtomicSource.found_in(f)))
    return {folder.name: folder for folder in found if folder.name not in BUILT_IN}


def available(data_root: Path | None = None) -> list[str]:
    """Every name that can be used, those of the data root first."""
    return [*folders(data_root), *BUILT_IN]


def default_datasets(data_root: Path | None = None) -> list[str]:
    """What a table runs on when nothing is named: all of the data root, and ml-100k."""
    return [*folders(data_root), "ml-100k"]


def canonical_name(name: str, data_root: Path | None = None) -> str:
    """The name as it is known, in any capitalisation; raises `UnknownNameError` with the nearest one."""
    known = {known.casefold(): known for known in available(data_root)}
    if name.casefold() not in known:
        root = resolve_data_root(data_root)
        hint = "Data sets beyond the built-in ones are looked for under --data-root or FEDVLR_DATA"
        raise unknown_name(
            "data set", name, list(known.values()), hint + (f" (now '{root}')." if root else " (none is set).")
        )
    return known[name.casefold()]


def find_source(name: str, data_root: Path | None = None) -> Source:
    """Find the source of a data set.

    Raises:
        UnknownNameError: there is none of that name; the message has the nearest one.
        DataError: the data set's files were being replaced, and that was stopped.
    """
    name = canonical_name(name, data_root)
    if name == "ml-100k":
        return PackagedMovieLens()
    if name == "planted":
        return PlantedSource()
    folder = folders(data_root)[name]
    if (folder / UNFINISHED).is_file():
        raise DataError(
            f"the data set '{name}' is unfinished: its files were being replaced when that was stopped; run the same "
            "`fedvlr data` command again"
        )
    return ReleasedSource(name, folder) if ReleasedSource.found_in(folder) else AtomicSource(name, folder)
