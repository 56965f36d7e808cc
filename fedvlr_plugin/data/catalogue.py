"""Find data sets by name: folders under the data root, and the registry of sources.

The registry holds the packaged ml-100k, `planted`, and the sources of installed packages (entry-point group
`fedvlr_plugin.sources`). A folder under the data root has priority over a registered source of the same name. The data
root is the option, else the environment variable `FEDVLR_DATA`, else `data/` in the working directory if it exists.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fedvlr_plugin.data.atomic_files import AtomicSource, PackagedMovieLens
from fedvlr_plugin.data.reading.names import same_name
from fedvlr_plugin.data.released_layout import ReleasedSource
from fedvlr_plugin.data.source import SOURCES, Source
from fedvlr_plugin.data.synthetic import PlantedSource
from fedvlr_plugin.errors import DataError, UnknownNameError, unknown_name
from fedvlr_plugin.files import UNFINISHED

ROOT_VARIABLE = "FEDVLR_DATA"
DEFAULT_ROOT = Path("data")
SOURCES.add("ml-100k", PackagedMovieLens)
SOURCES.add("planted", PlantedSource)


def resolve_data_root(option: Path | None = None) -> Path | None:
    """Return the data root.

    Args:
        option: of the command line; None if it is not given.

    Returns:
        The folder; None if there is no data root.

    Raises:
        DataError: the option or the environment variable names no folder.
    """
    named = os.environ.get(ROOT_VARIABLE)
    for root, how in ((option, "--data-root"), (Path(named) if named else None, ROOT_VARIABLE)):
        if root is not None:
            if not root.is_dir():
                raise DataError(f"{how}: '{root}' is not a folder; name the folder that holds ku/, ml/, ...")
            return root
    return DEFAULT_ROOT if DEFAULT_ROOT.is_dir() else None


def folders(data_root: Path | None = None) -> dict[str, Path]:
    """Return the data set folders under the data root by name, sorted."""
    root = resolve_data_root(data_root)
    if root is None:
        return {}
    data_sets = sorted(
        f for f in root.iterdir() if f.is_dir() and (ReleasedSource.found_in(f) or AtomicSource.found_in(f))
    )
    return {folder.name: folder for folder in data_sets}


def available(data_root: Path | None = None) -> list[str]:
    """Return the names of all data sets, those of the data root first."""
    return list(dict.fromkeys([*folders(data_root), *SOURCES]))


def default_datasets(data_root: Path | None = None) -> list[str]:
    """Return the data sets of a table by default: all under the data root, and ml-100k."""
    return list(dict.fromkeys([*folders(data_root), "ml-100k"]))


def canonical_name(name: str, data_root: Path | None = None) -> str:
    """Return a data set's name in its registered spelling.

    Args:
        name: exact, or different in capitals or Unicode form only.
        data_root: folder of the data sets; None for the default.

    Raises:
        UnknownNameError: there is no such data set (the message suggests the nearest), or several that differ in
            capitals only.
        ConfigError: an installed package declares the data set but cannot be loaded.
    """
    known = available(data_root)
    if name in known:
        return name
    alike = [one for one in known if same_name(one, name)]
    if len(alike) == 1:
        return alike[0]
    if not alike:
        with suppress(UnknownNameError):
            return SOURCES.canonical(name)
    root = resolve_data_root(data_root)
    hint = "Data sets beyond the built-in ones are looked for under --data-root or FEDVLR_DATA"
    hint += f" (now '{root}')." if root else " (none is set)."
    if alike:
        hint = f"Several differ in capitals only: {', '.join(alike)}; write the one that you mean. {hint}"
    raise unknown_name("data set", name, known, hint)


def find_source(name: str, data_root: Path | None = None) -> Source:
    """Find the source of a data set.

    Args:
        name: of the data set.
        data_root: folder of the data sets; None for the default.

    Raises:
        UnknownNameError: there is no such data set; the message suggests the nearest.
        DataError: a replacement of its files was interrupted, or it has files of two layouts.
    """
    name = canonical_name(name, data_root)
    folder = folders(data_root).get(name)
    if folder is not None:
        if (folder / UNFINISHED).is_file():
            raise DataError(
                f"the data set '{name}' is unfinished: its files were being replaced when that was stopped; run the same "
                "`fedvlr data` command again"
            )
        if ReleasedSource.found_in(folder) and AtomicSource.found_in(folder):
            raise DataError(
                f"'{name}' has both inter.csv and {name}.inter; which of them is the data set? Move one of them away"
            )
        return ReleasedSource(name, folder) if ReleasedSource.found_in(folder) else AtomicSource(name, folder)
    return SOURCES.get(name)()
