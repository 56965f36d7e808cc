"""Open and prepare a data set through RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedvlr_plugin.data.catalogue import canonical_name, default_datasets, folders, resolve_data_root
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.recbole.config import FedVLRConfig, given_root
from fedvlr_plugin.data.recbole.dataset import FedVLRDataset

from recbole.model.abstract_recommender import GeneralRecommender  # isort: skip
from recbole.utils import InputType  # isort: skip

Stamp = tuple[tuple[str, int, int], ...]
_CACHE: dict[tuple[str, str | None], tuple[Stamp, PreparedData]] = {}


class AnyModel(GeneralRecommender):
    """A model class for RecBole's Config, which requires one, when only the data is needed."""

    input_type = InputType.POINTWISE


def open_dataset(
    name: str,
    data_root: Path | None = None,
    model: str | type = AnyModel,
    config_dict: Mapping[str, object] | None = None,
    known_keys: tuple[str, ...] = (),
) -> FedVLRDataset:
    """A `FedVLRDataset` with its `FedVLRConfig` at `.config`; raises `UnknownNameError` for another name."""
    named = given_root({"data_root": data_root, **(config_dict or {})})
    name = canonical_name(name, named)
    root = resolve_data_root(named)
    settings = {"data_root": None if root is None else str(root), **(config_dict or {})}
    return FedVLRDataset(FedVLRConfig(model, name, config_dict=settings, known_keys=known_keys))


def prepare(name: str, data_root: Path | None = None) -> PreparedData:
    """Return a prepared data set; it is read once for each process and data root, and again if a file has changed."""
    root = resolve_data_root(data_root)
    key = (canonical_name(name, root), None if root is None else str(root.resolve()))
    folder = folders(root).get(key[0])
    stamp: Stamp = ()
    if folder is not None:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        stamp = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    if key not in _CACHE or _CACHE[key][0] != stamp:
        _CACHE[key] = stamp, open_dataset(name, root).prepared
    return _CACHE[key][1]


def default(data_root: Path | None) -> list[str]:
    """Return all data sets under the data root, and ml-100k."""
    return default_datasets(data_root)


def check(name: str, data_root: Path | None) -> str:
    """Return the registered spelling of a name; raise `UnknownNameError` with the nearest name."""
    return canonical_name(name, data_root)


def load(name: str, data_root: Path | None) -> PreparedData:
    """Read and prepare a data set; raise `DataError` if its files cannot be used."""
    return prepare(name, resolve_data_root(data_root))
