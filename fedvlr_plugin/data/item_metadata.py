"""Find titles and images of a data set's items, in every layout."""

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
    """Return the folder of a data set; None for a generated one."""
    source = find_source(name, data_root)
    return source.folder if isinstance(source, (AtomicSource, ReleasedSource)) else None


def item_titles(name: str, data_root: Path | None) -> Mapping[str, str]:
    """Return titles by raw item token; empty if the data set has none."""
    folder = dataset_folder(name, data_root)
    return {} if folder is None else read_titles(folder)


def item_images(data: PreparedData, images: Path | None, data_root: Path | None) -> dict[str, Path]:
    """Return image files by raw item token.

    Args:
        data: the prepared data set.
        images: folder of the images, named by token or by the publisher's id in `items.csv`; None for no images.
        data_root: folder of the data sets; None for the default.

    Raises:
        DataError: `images` is no folder.
    """
    if images is None:
        return {}
    tokens = data.interactions.item_tokens
    pairs = zip(tokens, image_paths(data.name, tokens, images, data_root), strict=True)
    return {token: path for token, path in pairs if path is not None}


def image_paths(name: str, tokens: tuple[str, ...], images: Path, data_root: Path | None) -> list[Path | None]:
    """Find the image of each item.

    Args:
        name: of the data set.
        tokens: of the items.
        images: folder of the images, named by token or by the publisher's id in `items.csv`.
        data_root: folder of the data sets; None for the default.

    Returns:
        A path for each token, in the same order; None if there is no image.

    Raises:
        DataError: `images` is no folder.
    """
    if not images.is_dir():
        raise DataError(f"the folder of images '{images}' is not there; name it with --images")
    folder = dataset_folder(name, data_root)
    ids = {} if folder is None else publishers_ids(folder)
    return find_images(images, [ids.get(token, token) for token in tokens])
