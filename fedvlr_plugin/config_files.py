"""Finds the shipped configuration files by name, in a checkout and in an installed package alike.

`recbole_configs/` lies at the top of the repository and inside the package of a wheel.
"""

from __future__ import annotations

from pathlib import Path

import fedvlr_plugin
from fedvlr_plugin.errors import ConfigError, unknown_name

FOLDERS = ("model", "dataset")


def config_folder(name: str = "recbole_configs") -> Path:
    """The folder of shipped configuration files, `recbole_configs` or `fedml_configs`.

    Raises:
        ConfigError: it is neither in the package nor beside it (a broken installation).
    """
    package = Path(fedvlr_plugin.__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the folder '{name}' of this package is missing at '{package}'; install fedvlr-plugin again")


def config_names() -> list[str]:
    """Every name that `config_path` knows, e.g. `model/BM3`, `dataset/ku`."""
    root = config_folder()
    return [f"{folder}/{path.stem}" for folder in FOLDERS for path in sorted((root / folder).glob("*.yaml"))]


def config_path(name: str) -> str:
    """The path of a shipped yaml, as RecBole's `config_file_list` takes it.

    Args:
        name: `"BM3"`, `"model/BM3"`, `"dataset/ku"`, in any capitalisation; the suffix `.yaml` may be there.

    Raises:
        UnknownNameError: there is no such file, with the nearest name.
    """
    wanted = name.removesuffix(".yaml").casefold()
    known = config_names()
    for candidate in known:
        if wanted in (candidate.casefold(), candidate.rpartition("/")[2].casefold()):
            return str(config_folder() / f"{candidate}.yaml")
    raise unknown_name("configuration file", name, [n.rpartition("/")[2] for n in known])
