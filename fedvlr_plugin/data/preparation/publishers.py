"""How each publisher's files are read: rows, titles and image addresses. One class per publisher.

* Amazon Reviews 2023 (Hou et al. 2024): `<Category>.csv` of the official 5-core, `meta_<Category>.jsonl` for titles
  and images (or a csv with `parent_asin, title, images`). The publisher has filtered and de-duplicated.
* MovieLens latest-small (Harper & Konstan 2015): `ratings.csv`, `movies.csv`; items with fewer than 5 ratings dropped.
* NineRec (Zhang et al. 2024): `<Name>_pair.csv` without heading (item, user, timestamp), `<Name>_item.csv` (item,
  Chinese title, English title), covers as `<item>.jpg`; iterative 5-core on users and items.

Users with fewer than 5 interactions are dropped everywhere (the paper's rule).
"""

from __future__ import annotations

import ast
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fedvlr_plugin.data.preparation.raw_files import RawFile, find, numbers, table
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER
from fedvlr_plugin.errors import DataError

LEAST = 5
IMAGE_COLUMNS = ("images", "image_url", "image")
COLUMNS = [USER, ITEM, RATING, TIME]


@dataclass(frozen=True)
class Raw:
    """What a publisher's files hold.

    Attributes:
        rows: user, item (str), rating, timestamp (float), in file order.
        titles: item to title; missing titles are left out. image_urls: item to address.
        classes: item to genres or the like, separated by blanks. files: what was read.
    """

    rows: pd.DataFrame
    titles: dict[str, str] = field(default_factory=dict)
    image_urls: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    files: tuple[RawFile, ...] = ()


class Publisher(ABC):
    """Reads one publisher's layout and applies its rules."""

    citation: str
    page: str
    filters: tuple[str, ...]
    filenames: tuple[str, ...]

    @abstractmethod
    def read(self, folder: Path) -> Raw:
        """Reads the raw files under `folder`; raises `DataError` for what is missing or odd."""

    @abstractmethod
    def filter(self, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """The steps in order, each with the rows that are left after it; the last one is the result."""

    def find(self, folder: Path, names: tuple[str, ...]) -> RawFile:
        """A file that must be there."""
        found = find(folder, names)
        if found is None:
            raise DataError(
                f"no {' or '.join(names)} (plain, .gz or in a zip) under the raw folder '{folder.name}'; get it from "
                f"{self.page} and put it there, or name another folder with --raw"
            )
        return found


class Amazon(Publisher):
    """One category of Amazon Reviews 2023."""

    citation = "Hou et al. 2024, Amazon Reviews 2023, official 5-core (rating only)"
    page = "https://amazon-reviews-2023.github.io/"
    filters = ("distinct pairs", f"users with {LEAST} interactions or more")

    def __init__(self, category: str) -> None:
        self.category = category
        self.filenames = (f"{category}.csv", f"meta_{category}.jsonl")

    def read(self, folder: Path) -> Raw:
        file = self.find(folder, (self.filenames[0],))
        frame = table(file, ("user_id", "parent_asin", "rating", "timestamp"))
        rows = pd.DataFrame(
            {
                USER: frame["user_id"],
                ITEM: frame["parent_asin"],
                RATING: numbers(frame, "rating", file.name),
                TIME: numbers(frame, "timestamp", file.name),
            }
        )
        described = find(folder, (self.filenames[1], f"meta_{self.category}.csv", "meta_items.csv"))
        if described is None:
            return Raw(rows, files=(file,))
        meta = table(described, ("parent_asin", "title"), optional=IMAGE_COLUMNS)
        meta = meta[meta["parent_asin"].isin(rows[ITEM].unique())].drop_duplicates("parent_asin")
        titles = _texts(meta, "parent_asin", "title")
        urls: dict[str, str] = {}
        column = next((name for name in IMAGE_COLUMNS if name in meta), None)
        if column is not None:
            pairs = zip(meta["parent_asin"], meta[column], strict=True)
            urls = {str(token): url for token, entry in pairs if (url := _image_url(entry))}
        return Raw(rows, titles, urls, files=(file, described))

    def filter(self, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        distinct = first_of_pair(rows)
        return [(self.filters[0], distinct), (self.filters[1], at_least(distinct, USER, LEAST))]


class MovieLens(Publisher):
    """MovieLens latest-small."""

    citation = "Harper & Konstan 2015, MovieLens latest-small"
    page = "https://grouplens.org/datasets/movielens/latest/"
    filters = ("distinct pairs", f"items with {LEAST} ratings or more", f"users with {LEAST} interactions or more")
    filenames = ("ratings.csv", "movies.csv")

    def read(self, folder: Path) -> Raw:
        file, described = self.find(folder, ("ratings.csv",)), self.find(folder, ("movies.csv",))
        frame = table(file, ("userId", "movieId", "rating", "timestamp"))
        rows = pd.DataFrame(
            {
                USER: frame["userId"],
                ITEM: frame["movieId"],
                RATING: numbers(frame, "rating", file.name),
                TIME: numbers(frame, "timestamp", file.name),
            }
        )
        movies = table(described, ("movieId", "title", "genres"))
        genres = movies["genres"].where(movies["genres"] != "(no genres listed)", "").str.replace("|", " ", regex=False)
        classes = _texts(pd.DataFrame({"key": movies["movieId"], "genres": genres}), "key", "genres")
        return Raw(rows, _texts(movies, "movieId", "title"), {}, classes, (file, described))

    def filter(self, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        distinct = first_of_pair(rows)
        items = at_least(distinct, ITEM, LEAST)
        return [(self.filters[0], distinct), (self.filters[1], items), (self.filters[2], at_least(items, USER, LEAST))]


class NineRec(Publisher):
    """One downstream set of NineRec."""

    citation = "Zhang et al. 2024, NineRec"
    page = "https://github.com/westlake-repl/NineRec (section Dataset, the Google Drive link)"
    filters = ("distinct pairs", f"iterative {LEAST}-core on users and items")

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.filenames = (f"{stem}_pair.csv", f"{stem}_item.csv")

    def read(self, folder: Path) -> Raw:
        file = self.find(folder, (self.filenames[0],))
        frame = table(file, (ITEM, USER, TIME), [ITEM, USER, TIME])
        if pd.to_numeric(frame[TIME].iloc[:1], errors="coerce").isna().all():
            frame = frame.iloc[1:]  # a heading that somebody put in
        times = numbers(frame, TIME, file.name)
        rows = pd.DataFrame({USER: frame[USER], ITEM: frame[ITEM], RATING: 1.0, TIME: times}).reset_index(drop=True)
        described = find(folder, (self.filenames[1],))
        if described is None:
            return Raw(rows, files=(file,))
        names = table(described, (ITEM, "chinese", "english"), [ITEM, "chinese", "english"])
        known = set(rows[ITEM])
        names = names[names[ITEM].isin(known)].drop_duplicates(ITEM)
        titles = {**_texts(names, ITEM, "chinese"), **_texts(names, ITEM, "english")}
        return Raw(rows, titles, {}, {}, (file, described))

    def filter(self, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        distinct = first_of_pair(rows)
        return [(self.filters[0], distinct), (self.filters[1], k_core(distinct, LEAST))]


def keep_counts(steps: list[tuple[str, pd.DataFrame]]) -> list[dict[str, str | int]]:
    """What is left after each step, for the manifest."""
    return [{"step": name, **counts(rows)} for name, rows in steps]


def _texts(frame: pd.DataFrame, key: str, column: str) -> dict[str, str]:
    """Item to text, white space collapsed; empty and missing texts are left out."""
    out: dict[str, str] = {}
    for token, text in zip(frame[key].astype(str).tolist(), frame[column].tolist(), strict=True):
        if isinstance(text, str) and text.split():
            out[str(token)] = " ".join(text.split())
    return out


def _image_url(entry: object) -> str | None:
    """The address of the main image, the largest there is, from a metadata entry; None where there is none.

    In jsonl an entry is a list of images. A csv holds that list as text, or the address itself.
    """
    if isinstance(entry, str):
        if not entry.lstrip().startswith("["):
            return entry.strip() or None
        text = entry.strip()
        try:
            entry = json.loads(text)
        except ValueError:
            try:
                entry = ast.literal_eval(text)  # as Python's csv writer puts a list
            except (ValueError, SyntaxError):
                return None
    images = [image for image in entry if isinstance(image, dict)] if isinstance(entry, list) else []
    for image in sorted(images, key=lambda one: one.get("variant") != "MAIN"):
        for size in ("hi_res", "large", "thumb"):
            if isinstance(image.get(size), str):
                return str(image[size])
    return None


def first_of_pair(rows: pd.DataFrame) -> pd.DataFrame:
    """Duplicate (user, item) rows counted once, the first (algorithm.md section 6)."""
    return rows[~rows.duplicated([USER, ITEM], keep="first")]


def at_least(rows: pd.DataFrame, column: str, least: int) -> pd.DataFrame:
    """Rows whose user (or item) occurs in `least` rows or more; one pass."""
    sizes = rows.groupby(column, sort=False)[column].transform("size")
    return rows[sizes >= least]


def k_core(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """The largest part in which every user and every item has `k` rows or more: both filters until nothing changes."""
    while True:
        kept = at_least(at_least(rows, USER, k), ITEM, k)
        if len(kept) == len(rows):
            return kept
        rows = kept


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Users, items and rows, for manifests."""
    return {"users": int(rows[USER].nunique()), "items": int(rows[ITEM].nunique()), "interactions": len(rows)}
