"""Make the features of a data set: find its items, titles and images, run the encoder, show a progress bar."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.catalogue import find_source
from fedvlr_plugin.data.item_metadata import image_paths, item_titles
from fedvlr_plugin.data.released_layout import ReleasedSource
from fedvlr_plugin.data.source import ITEM
from fedvlr_plugin.errors import ConfigError, DataError
from fedvlr_plugin.features.encoder import ENCODERS, TEXT, VISION, Encoder, EncoderFactory
from fedvlr_plugin.features.extraction import (
    STEMS,
    Extraction,
    extract_images,
    extract_texts,
    images_hash,
    made_by,
    prompts,
    remove_parts,
    request_of,
)
from fedvlr_plugin.registry import Registry

MOST_ROWS, GAPS = 200_000, 20  # more vectors than both limits allow indicate a mistake in the numbering


def encoders() -> Registry[EncoderFactory]:
    """Return the registry with the encoders of this package; the first look-up adds those of installed packages."""
    for module in ("clip", "optional_encoders"):
        import_module(f"fedvlr_plugin.features.{module}")
    return ENCODERS


def make_encoder(name: str, settings: Mapping[str, object]) -> Encoder:
    """Create an encoder.

    Args:
        name: of the encoder, as registered.
        settings: keyword arguments of the encoder.

    Raises:
        UnknownNameError: there is no encoder of that name.
        ConfigError: the encoder has no setting of that name.
    """
    factory = encoders().get(name)
    allowed = list(inspect.signature(factory).parameters)
    for key in settings:
        if key not in allowed:
            option = f"--{key.replace('_', '-')}"
            raise ConfigError(f"the encoder '{name}' has no {option}; it has {', '.join(allowed)}")
    return factory(**settings)


def items_of(name: str, data_root: Path | None) -> tuple[Path, tuple[str, ...], bool]:
    """Find the items of a data set.

    Args:
        name: of the data set.
        data_root: folder of the data sets; None for the default.

    Returns:
        The data set's folder; the tokens of all items; whether features are stored by itemID (released layout).

    Raises:
        DataError: the data set has no folder on disk, or its itemIDs have too many gaps.
    """
    source = find_source(name, data_root)
    if isinstance(source, ReleasedSource):
        rows = source.interactions()
        items = rows[ITEM].nunique()
        if source.n_rows > max(MOST_ROWS, GAPS * items):
            raise DataError(
                f"{source.name}/inter.csv has {items:,} items, but their itemIDs reach {source.n_rows - 1:,}, and features need "
                f"a row for each number below (row = itemID). Number the items from 0 on, or turn the folder into atomic "
                f"files, whose features are by token: fedvlr data import {source.folder.name}"
            )
        return source.folder, tuple(str(i) for i in range(source.n_rows)), True
    if type(source) is AtomicSource:
        return source.folder, tuple(dict.fromkeys(source.interactions()[ITEM])), False
    raise DataError(
        f"'{source.name}' brings its own features and has no folder of yours to write into; prepare a data set first"
    )


def encode_dataset(
    name: str,
    modalities: Sequence[str],
    encoder_name: str,
    settings: Mapping[str, object],
    images: Path | None = None,
    batch_size: int | None = None,
    data_root: Path | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[str]:
    """Make the features of each modality and write them into the data set's folder.

    Args:
        name: of the data set.
        modalities: `vision`, `text` or both.
        encoder_name: of the encoder, as registered.
        settings: keyword arguments of the encoder.
        images: folder of the images; needed for `vision`.
        batch_size: items in a call of the encoder; None for the encoder's default.
        data_root: folder of the data sets; None for the default.
        overwrite: replace existing feature files, which may be precomputed; otherwise they are an error.

    Yields:
        Lines of text about what was made.

    Raises:
        ConfigError: the encoder cannot make a modality, or `images` is missing.
        DataError: there are no titles, feature files exist already, or no image can be read.
    """
    for modality in modalities:
        if modality not in (VISION, TEXT):
            raise ConfigError(f"unknown modality '{modality}'; it must be vision or text")
    if VISION in modalities and images is None:
        raise ConfigError("vision features need images: name their folder with --images DIR")
    folder, tokens, by_row = items_of(name, data_root)
    paths = image_paths(name, tokens, images, data_root) if images is not None else []
    titles = item_titles(name, data_root)
    if TEXT in modalities and not titles:
        raise DataError(
            f"'{name}' has no titles: neither {folder.name}.item nor items.csv (itemID, title) in its folder, so there is no text"
        )
    requests = {
        modality: request_of(encoder_name, settings, tokens, _inputs(modality, tokens, titles, paths), by_row)
        for modality in modalities
    }
    todo = []
    for modality in modalities:
        made = made_by(folder, modality, requests[modality])
        file = folder / f"{STEMS[modality]}_features.npy"
        if file.exists() and not overwrite and made == "nothing":
            raise DataError(
                f"'{folder.name}/{file.name}' is there already; keep it, or replace it for good with --overwrite"
            )
        if file.exists() and not overwrite and made == "all":
            remove_parts(folder, modality)
            yield f"{modality}: '{folder.name}/{file.name}' is finished, made by this same command; it is kept"
        else:
            todo.append(modality)
    if not todo:
        return
    encoder = make_encoder(encoder_name, settings)
    if unable := [m for m in modalities if m not in encoder.modalities]:
        raise ConfigError(
            f"the encoder '{encoder_name}' makes no {unable[0]} features, only {', '.join(sorted(encoder.modalities))}"
        )
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")  # unusual images are counted and reported below
        task = progress.add_task(f"{name}: {', '.join(todo)}", total=len(tokens) * len(todo))

        def advance(rows: int) -> None:
            progress.advance(task, rows)

        results = []
        for modality in todo:
            request = requests[modality]
            if modality == TEXT:
                extraction = extract_texts(
                    encoder,
                    tokens,
                    titles,
                    folder,
                    by_row=by_row,
                    batch_size=batch_size,
                    on_rows=advance,
                    request=request,
                )
            else:
                extraction = extract_images(
                    encoder,
                    tokens,
                    paths,
                    folder,
                    by_row=by_row,
                    batch_size=batch_size,
                    on_rows=advance,
                    request=request,
                )
            results.append(extraction)
    for extraction in results:
        yield from tell(extraction)


def _inputs(modality: str, tokens: Sequence[str], titles: Mapping[str, str], paths: Sequence[Path | None]) -> list[str]:
    """Return what the features of a modality depend on, as text."""
    return prompts(tokens, titles) if modality == TEXT else [images_hash(paths)]


def tell(found: Extraction) -> Iterator[str]:
    """Yield lines that report what was made, how fast, and which items had problems."""
    per_s = found.encoded / found.total_s if found.total_s else 0.0
    yield f"{found.modality}: {found.rows:,} of {found.items:,} items, {found.width} columns, by {found.label}"
    yield (
        f"  {found.total_s:.1f} s, {per_s:.1f} items encoded a second; in the encoder {found.encoder_s:.1f} s, waiting for inputs "
        f"{found.input_s:.1f} s" + (f"; {found.resumed:,} were there from an interrupted run" if found.resumed else "")
    )
    for title, entries in (("without usable input", found.problems), ("converted", found.notes)):
        for reason, count in Counter(entries.values()).most_common():
            first = next(token for token, why in entries.items() if why == reason)
            yield f"  {title}: {count:,} {reason} (e.g. item {first})"
