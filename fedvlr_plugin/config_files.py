"""Find the shipped configuration files by name, in a checkout and in an installed package.

`recbole_configs/` is at the top of the repository, and inside the package in a wheel.
"""

from __future__ import annotations

from pathlib import Path

import fedvlr_plugin
from fedvlr_plugin.errors import ConfigError, unknown_name

FOLDERS = ("model", "dataset")


def config_folder(name: str = "recbole_configs") -> Path:
    """Return the folder of shipped configuration files.

    Args:
        name: `recbole_configs` or `fedml_configs`.

    Raises:
        ConfigError: the folder is missing (a broken installation).
    """
    package = Path(fedvlr_plugin.__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the folder '{name}' of this package is missing at '{package}'; install fedvlr-plugin again")


def config_names() -> list[str]:
    """List the names that `config_path` knows, e.g. `model/BM3`, `dataset/ku`."""
    root = config_folder()
    return [f"{folder}/{path.stem}" for folder in FOLDERS for path in sorted((root / folder).glob("*.yaml"))]


def config_path(name: str) -> str:
    """Return the path of a shipped YAML file, for RecBole's `config_file_list`.

    Args:
        name: e.g. `"BM3"`, `"model/BM3"`, `"dataset/ku"`, in any capitalisation, with or without `.yaml`.

    Raises:
        UnknownNameError: there is no such file; the message suggests the nearest.
    """
    key = name.removesuffix(".yaml").casefold()
    known = config_names()
    for candidate in known:
        if key in (candidate.casefold(), candidate.rpartition("/")[2].casefold()):
            return str(config_folder() / f"{candidate}.yaml")
    raise unknown_name("configuration file", name, [n.rpartition("/")[2] for n in known])
