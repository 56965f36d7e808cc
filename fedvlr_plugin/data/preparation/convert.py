"""The paper's released layout to RecBole's atomic files and back, without loss.

Import: raw tokens are the itemIDs and userIDs, split labels become the column `split_label`, feature files and their
manifests are copied byte for byte and get their tokens beside them. Export: tokens that are whole numbers from 0 on
stay the ids, others are numbered by first appearance and named in `items.csv`; the split is the data set's own; the
manifest of features whose rows had to move tells the new rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.interactions import IntArray, leave_one_out
from fedvlr_plugin.data.preparation.prepare import NO_TITLE, write_table
from fedvlr_plugin.data.released_layout import INTER_FILE, SUFFIX, ReleasedSource, manifest_of, values_hash
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
    matrices = sorted(folder.glob(f"*{SUFFIX}"))
    write_data_file(target / f"{name}.inter", write_table(rows.rename(columns=ATOMIC)))
    for file, checked in zip(matrices, features, strict=True):
        write_data_file(target / file.name, file.read_bytes())
        write_lines(target / file.with_suffix(".tokens").name, checked.tokens)
        _copy_manifest(file, target)
    described = folder / "items.csv"
    if described.is_file():
        write_data_file(target / "items.csv", described.read_bytes())
        items = pd.read_csv(described, dtype=str, keep_default_na=False)
        if {"itemID", "title"} <= set(items.columns):
            titles = items["title"].map(lambda text: " ".join(text.split()) or NO_TITLE)
            frame = pd.DataFrame({"item_id:token": items["itemID"], "title:token_seq": titles})
            write_data_file(target / f"{name}.item", write_table(frame))
    return target


def export_released(folder: Path, out: Path) -> Path:
    """Writes the atomic data set at `folder` to `out/<name>` in the released layout; returns it.

    A data set without split labels is split here (leave-one-out in time). Raises `DataError` for what is odd.
    """
    name = folder.name
    source = AtomicSource(name, folder)
    source.check(("user_id", "item_id", "timestamp"))
    frame = pd.read_csv(
        folder / f"{name}.inter", sep="\t", dtype={"user_id:token": str, "item_id:token": str}, keep_default_na=False
    )
    frame = frame.rename(columns={there: here for here, there in ATOMIC.items()})
    users, user_ids = _numbered(frame[USER])
    items, item_ids = _numbered(frame[ITEM])
    if LABEL not in frame:
        first = ~frame.duplicated([USER, ITEM])
        frame = frame[first].reset_index(drop=True)
        users, items = users[first.to_numpy()], items[first.to_numpy()]
        frame[LABEL] = leave_one_out(users, frame[TIME].to_numpy(dtype=np.float64))
    frame = frame.assign(**{USER: users, ITEM: items})
    if RATING not in frame:
        frame[RATING] = 1.0
    frame[RATING] = frame[RATING].astype(np.float64)
    target = _fresh(out / name)
    kept = [column for column in RELEASED if column in frame]
    text = frame[kept].rename(columns=RELEASED).to_csv(index=False, lineterminator="\n")
    for feature, file in zip(source.features(), sorted(folder.glob(f"*{SUFFIX}")), strict=True):
        original = np.load(file, allow_pickle=False)
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
        titles = read_titles(folder)
        described["title"] = [titles.get(token, "") for token in item_ids]
        write_data_file(target / "items.csv", described.to_csv(index=False).encode())
    return target


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


def read_titles(folder: Path) -> dict[str, str]:
    """Item token to title from `<name>.item` or `items.csv`; missing titles are left out; empty without a file.

    Raises `DataError` for one that is no table.
    """
    for file, key, separator in (
        (folder / f"{folder.name}.item", "item_id", "\t"),
        (folder / "items.csv", "itemID", ","),
    ):
        if file.is_file():
            try:
                frame = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
            except (ValueError, pd.errors.ParserError) as error:
                why = " ".join(str(error).split())[:160]
                raise DataError(f"'{folder.name}/{file.name}' cannot be read as a table of titles: {why}") from None
            frame.columns = [column.split(":")[0] for column in frame.columns]
            title = next((c for c in ("title", "movie_title", "item_title", "name") if c in frame), None)
            if title is not None and key in frame:
                pairs = zip(frame[key], frame[title], strict=True)
                return {token: text for token, text in pairs if text.strip() and text != NO_TITLE}
    return {}


def _numbered(tokens: pd.Series[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Ids of tokens, and the tokens in order of their id; whole numbers stay what they are, gaps included."""
    numbers = pd.to_numeric(tokens, errors="coerce")
    if not numbers.isna().any() and (numbers % 1 == 0).all() and (numbers >= 0).all():
        ids = numbers.to_numpy(dtype=np.int64)
        if (pd.Series(ids).astype(str).to_numpy() == tokens.to_numpy()).all() and ids.max() < 4 * len(np.unique(ids)):
            return ids, tuple(str(i) for i in range(int(ids.max()) + 1))
    codes, known = pd.factorize(tokens)
    return codes.astype(np.int64), tuple(str(token) for token in known)


def _fresh(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"the folder '{folder}' is there already and not empty; name another one with --out")
    return folder
