"""Makes a data set from its publisher's files: atomic files, titles, a manifest; and checks one against Table 1.

    OUT/<name>/<name>.inter    user_id:token item_id:token rating:float timestamp:float, in the publisher's order
    OUT/<name>/<name>.item     item_id:token title:token_seq class:token_seq
    OUT/<name>/image_urls.csv  item_id,url where the publisher gives addresses
    OUT/<name>/manifest.json   sources with size and sha256, recipe, filters, counts before and after

Everything is computed before the first file is written. A new data set is written into a folder beside its own, which then
takes its name: it is there whole or not at all. One that is replaced (`overwrite`) carries the mark `.unfinished` until
its last file is in place; readers refuse it until then, and the same command goes on. Feature files that lie there stay:
they are keyed by raw token.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import fedvlr_plugin
from fedvlr_plugin.data.preparation.publishers import Raw, counts, keep_counts
from fedvlr_plugin.data.preparation.recipes import VERSION, Recipe, find_recipe
from fedvlr_plugin.data.reading.columns import EXACT, time_unit
from fedvlr_plugin.data.reading.titles import NO_TITLE
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER
from fedvlr_plugin.data.statistics import table1
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.files import UNFINISHED, read_json, remove_leftovers, temporary_name, write_data_file, write_json
from fedvlr_plugin.locks import only_writer

MANIFEST = "manifest.json"
FIELDS = {USER: "user_id:token", ITEM: "item_id:token", RATING: "rating:float", TIME: "timestamp:float"}


def prepare_raw(name: str, raw_folder: Path, out: Path, *, overwrite: bool = False) -> dict[str, object]:
    """Prepares the data set `name` from the files under `raw_folder` into `out/<name>`.

    Returns:
        The manifest.

    Raises:
        UnknownNameError: no recipe of that name.
        DataError: files missing or odd, nothing left after the filters, `out/<name>` is there already.
    """
    recipe = find_recipe(name)
    folder = out / recipe.name
    ours = (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_file()
    again = (folder / UNFINISHED).is_file() or (overwrite and ours)
    taken = folder.exists() and any(folder.iterdir()) and not again
    if taken and not ours:
        raise DataError(
            f"the folder '{folder}' is there already and not empty; it was not made by this command, or name another one "
            "with --out"
        )
    raw = recipe.publisher.read(raw_folder)
    steps = recipe.publisher.filter(raw.rows)
    rows = steps[-1][1]
    if rows.empty:
        raise DataError(f"data set '{recipe.name}': nothing is left after '{steps[-1][0]}' of {len(raw.rows):,} rows")
    items = list(dict.fromkeys(rows[ITEM]))
    manifest = _manifest(recipe, raw, steps, items)
    if taken:
        if read_json(folder / MANIFEST) == manifest:  # this command's own work, finished
            with only_writer(folder, f"data set '{recipe.name}' in '{out}'"):
                return manifest  # leaving the lock removes the file that a kill may have left of it
        raise DataError(
            f"the folder '{folder}' is there already, made of other files or by another version; replace it with "
            "--overwrite, or name another one with --out"
        )
    inter = write_table(rows[[*FIELDS]].rename(columns=FIELDS))
    described = pd.DataFrame(
        {
            "item_id:token": items,
            "title:token_seq": [raw.titles.get(item, NO_TITLE) for item in items],
            "class:token_seq": [raw.classes.get(item, "none") for item in items],
        }
    )
    urls = pd.DataFrame({"item_id": items, "url": [raw.image_urls.get(item, "") for item in items]})
    content = {f"{recipe.name}.inter": inter, f"{recipe.name}.item": write_table(described)}
    if raw.image_urls:
        content["image_urls.csv"] = urls[urls["url"] != ""].to_csv(index=False).encode()
    with only_writer(folder, f"data set '{recipe.name}' in '{out}'"):
        _write_whole(folder, content, manifest)
    return manifest


def _write_whole(folder: Path, content: Mapping[str, bytes], manifest: Mapping[str, object]) -> None:
    """Write all files of a data set so that a reader never takes a part of them for the whole."""
    remove_leftovers(folder.parent, deep=False)
    remove_leftovers(folder)
    if folder.exists() and any(folder.iterdir()):
        write_data_file(folder / UNFINISHED, b"being replaced; run the same command again to go on\n")
        _write_files(folder, content, manifest)
        (folder / UNFINISHED).unlink()
        return
    beside = temporary_name(folder.parent)
    try:
        _write_files(beside, content, manifest)
        os.replace(beside, folder)
    except OSError as error:
        raise DataError(f"cannot write '{folder}': {error.strerror or error}; name another folder with --out") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_files(folder: Path, content: Mapping[str, bytes], manifest: Mapping[str, object]) -> None:
    for name, text in content.items():
        write_data_file(folder / name, text)
    write_json(folder / MANIFEST, manifest)


def _manifest(recipe: Recipe, raw: Raw, steps: list[tuple[str, pd.DataFrame]], items: list[str]) -> dict[str, object]:
    return {
        "schema": 1,
        "name": recipe.name,
        "made_by": f"fedvlr-plugin {fedvlr_plugin.__version__}",
        "recipe_version": VERSION,
        "citation": recipe.publisher.citation,
        "sources": [file.facts() for file in raw.files],
        "times": time_unit(raw.rows[TIME].to_numpy()),
        "before": counts(raw.rows),
        "filters": keep_counts(steps),
        "after": counts(steps[-1][1]),
        "titles": sum(item in raw.titles for item in items),
        "image_urls": sum(item in raw.image_urls for item in items),
        "differs_from_table_1": compare(recipe.name, counts(steps[-1][1])),
    }


def compare(name: str, found: dict[str, int]) -> list[str]:
    """What differs from the row of Table 1, one line a figure; empty when all agrees."""
    paper = table1()[name]
    pairs = (("users", paper.users), ("items", paper.items), ("interactions", paper.interactions))
    return [
        f"{what}: Table 1 has {there:,}, here {found[what]:,} ({found[what] - there:+,})"
        for what, there in pairs
        if found[what] != there
    ]


def write_table(frame: pd.DataFrame) -> bytes:
    """Tab-separated text as RecBole reads it; whole numbers in float columns without a decimal point.

    Raises:
        DataError: a value holds a tab or a line break, which this format cannot keep.
    """
    frame = frame.copy()
    for column in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            odd = next((text for text in frame[column] if any(sign in text for sign in "\t\n\r\0\ufeff")), None)
            if odd is not None:
                raise DataError(f"{column}: {odd!r} holds a character that atomic files cannot keep (tab, line break)")
        elif (
            pd.api.types.is_float_dtype(frame[column])
            and ((frame[column] % 1 == 0) & (frame[column].abs() < EXACT)).all()
        ):
            frame[column] = frame[column].astype("int64")
    return str(frame.to_csv(index=False, sep="\t", lineterminator="\n")).encode()


def read_manifest(folder: Path) -> dict[str, object] | None:
    """The manifest of a prepared folder, None where there is none."""
    return read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
