"""The paper's released layout to RecBole's atomic files and back, without loss.

Import: raw tokens are the itemIDs and userIDs, split labels become the column `split_label`, feature files and their
manifests are copied byte for byte and get their tokens beside them. Export: tokens that are whole numbers from 0 on
stay the ids, others are numbered by first appearance and named in `items.csv`; the split is the data set's own; the
manifest of features whose rows had to move tells the new rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.interactions import IntArray, leave_one_out
from fedvlr_plugin.data.preparation.prepare import write_table
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.arrays import feature_files, load_array
from fedvlr_plugin.data.reading.items import ITEMS_FILE, TITLES, items_table, read_titles
from fedvlr_plugin.data.reading.titles import NO_TITLE
from fedvlr_plugin.data.released_layout import INTER_FILE, ReleasedSource, manifest_of, modality_of, values_hash
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.files import write_data_file, write_json, write_lines, write_matrix

ATOMIC = {
    USER: "user_id:token",
    ITEM: "item_id:token",
    RATING: "rating:float",
    TIME: "timestamp:float",
    LABEL: "split_label:float",
}
RELEASED = {USER: "userID", ITEM: "itemID", RATING: "rating", TIME: "timestamp", LABEL: "split_label"}


_PLAIN = re.compile("0|[1-9][0-9]{0,17}")


def import_released(folder: Path, out: Path, name: str | None = None) -> Path:
    """Writes `out/<name>` as atomic files; returns it. Raises `DataError` for what is odd or already there."""
    name = name or folder.resolve().name
    if not name or name != Path(name).name:
        raise DataError(f"'{name}' is no name for a data set; --name takes one word without slashes, e.g. shop")
    source = ReleasedSource(name, folder)
    if not ReleasedSource.found_in(folder):
        raise DataError(f"'{folder}' has no {INTER_FILE}, so it is not in the released layout")
    rows = source.interactions()
    features = source.features()  # checks them
    target = _fresh(out / name)
    matrices = feature_files(folder, modality_of)
    inter, item = write_table(rows.rename(columns=ATOMIC)), _item_file(folder)
    write_data_file(target / f"{name}.inter", inter)
    for file, checked in zip(matrices, features, strict=True):
        write_data_file(target / file.name, file.read_bytes())
        write_lines(target / file.with_suffix(".tokens").name, checked.tokens)
        _copy_manifest(file, target)
    if (folder / ITEMS_FILE).is_file():
        write_data_file(target / ITEMS_FILE, (folder / ITEMS_FILE).read_bytes())
    if item is not None:
        write_data_file(target / f"{name}.item", item)
    return target


def _item_file(folder: Path) -> bytes | None:
    """The content of `<name>.item` from `items.csv`; None where it names no titles."""
    table, titles = items_table(folder), read_titles(folder)
    if table is None or "itemID" not in table or not any(name in table for name in TITLES):
        return None
    tokens = list(dict.fromkeys(columns.whole_ids(table, "itemID")))
    named = [titles.get(token, NO_TITLE) for token in tokens]
    return write_table(pd.DataFrame({"item_id:token": tokens, "title:token_seq": named}, dtype=object))


def export_released(folder: Path, out: Path) -> Path:
    """Writes the atomic data set at `folder` to `out/<name>` in the released layout; returns it.

    A data set without split labels is split here (leave-one-out in time), unless it has users below the filter: who they
    are is then decided, and the split made, when the folder is opened, as for the atomic files. Raises `DataError` for what is odd.
    """
    name = folder.name
    source = AtomicSource(name, folder)
    frame = source.interactions()
    features = source.features()
    users, user_ids = _numbered(frame[USER])
    items, item_ids = _numbered(frame[ITEM])
    titles = read_titles(folder)
    if LABEL not in frame and _every_user_is_kept(frame):
        first = ~frame.duplicated([USER, ITEM])
        frame = frame[first].reset_index(drop=True)
        users, items = users[first.to_numpy()], items[first.to_numpy()]
        frame[LABEL] = leave_one_out(users, frame[TIME].to_numpy())
    frame = frame.assign(**{USER: users, ITEM: items})
    if RATING not in frame:
        frame[RATING] = 1.0
    target = _fresh(out / name)
    kept = [column for column in RELEASED if column in frame]
    text = frame[kept].rename(columns=RELEASED).to_csv(index=False, lineterminator="\n")
    for feature, file in zip(features, feature_files(folder, modality_of), strict=True):
        original = load_array(file, f"{name}/{file.name}")
        if list(feature.tokens) == list(item_ids):
            write_matrix(target / file.name, original)
            _copy_manifest(file, target)
            continue
        aligned = feature.align(item_ids).matrix.astype(original.dtype)
        write_matrix(target / file.name, aligned)
        _copy_manifest(file, target, original, aligned)
    write_data_file(target / INTER_FILE, text.encode())
    if (folder / "items.csv").is_file():
        write_data_file(target / "items.csv", (folder / "items.csv").read_bytes())
    elif list(item_ids) != [str(i) for i in range(len(item_ids))]:
        described = pd.DataFrame({"itemID": range(len(item_ids)), "item": item_ids})
        described["title"] = [titles.get(token, "") for token in item_ids]
        write_data_file(target / "items.csv", described.to_csv(index=False).encode())
    return target


def _every_user_is_kept(frame: pd.DataFrame) -> bool:
    """Whether no user has fewer distinct items than a run needs (labelled rows are taken as they are)."""
    pairs = frame.drop_duplicates([USER, ITEM])
    return int(pairs.groupby(USER, sort=False).size().min()) >= AtomicSource.min_interactions


def _copy_manifest(
    file: Path,
    target: Path,
    original: npt.NDArray[np.generic] | None = None,
    moved: npt.NDArray[np.generic] | None = None,
) -> None:
    """Takes a feature file's manifest along; for moved rows it gets their hash, if it fitted the rows before."""
    manifest = manifest_of(file)
    name = file.with_suffix(".json").name
    if manifest is None:
        return
    if original is None or moved is None or values_hash(original) != manifest.get("sha256_of_values"):
        write_data_file(target / name, file.with_suffix(".json").read_bytes())
        return
    changed = {"items": len(moved), "sha256_of_values": values_hash(moved)}
    before = {key: manifest[key] for key in ("items", "sha256_of_values", "sha256_of_tokens") if key in manifest}
    kept = {key: value for key, value in manifest.items() if key != "sha256_of_tokens"}
    write_json(target / name, {**kept, **changed, "rows_moved_from": before})


def _numbered(tokens: pd.Series[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Ids of tokens, and the tokens in order of their id; whole numbers stay what they are, gaps included."""
    distinct = list(dict.fromkeys(tokens))
    if all(_PLAIN.fullmatch(token) for token in distinct) and max(map(int, distinct)) < 4 * len(distinct):
        ids = np.array([int(token) for token in tokens], dtype=np.int64)
        return ids, tuple(str(i) for i in range(int(ids.max()) + 1))
    codes, known = pd.factorize(tokens)
    return codes.astype(np.int64), tuple(str(token) for token in known)


def _fresh(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"the folder '{folder}' is there already and not empty; name another one with --out")
    return folder
