"""Titles and images of a data set's items, wherever its layout keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.catalogue import find_source
from fedvlr_plugin.data.images import find_images
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.reading.items import publishers_ids, read_titles
from fedvlr_plugin.data.released_layout import ReleasedSource
from fedvlr_plugin.errors import DataError


def dataset_folder(name: str, data_root: Path | None) -> Path | None:
    """The folder of a data set on disk, None for a generated one."""
    source = find_source(name, data_root)
    return source.folder if isinstance(source, (AtomicSource, ReleasedSource)) else None


def item_titles(name: str, data_root: Path | None) -> Mapping[str, str]:
    """Raw item token to title; empty where the data set has none."""
    folder = dataset_folder(name, data_root)
    return {} if folder is None else read_titles(folder)


def item_images(data: PreparedData, images: Path | None, data_root: Path | None) -> dict[str, Path]:
    """Raw item token to image file, looked for by token, else by the publisher's id that `items.csv` gives.

    Raises:
        DataError: `images` is no folder.
    """
    if images is None:
        return {}
    tokens = data.interactions.item_tokens
    pairs = zip(tokens, image_paths(data.name, tokens, images, data_root), strict=True)
    return {token: path for token, path in pairs if path is not None}


def image_paths(name: str, tokens: tuple[str, ...], images: Path, data_root: Path | None) -> list[Path | None]:
    """The image of each token, in order; None where there is none. Raises `DataError` when `images` is no folder."""
    if not images.is_dir():
        raise DataError(f"the folder of images '{images}' is not there; name it with --images")
    folder = dataset_folder(name, data_root)
    named = {} if folder is None else publishers_ids(folder)
    return find_images(images, [named.get(token, token) for token in tokens])
