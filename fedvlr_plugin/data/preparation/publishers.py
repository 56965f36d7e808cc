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
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fedvlr_plugin.data.preparation.raw_files import RawFile, find, read_entries, read_raw_table
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.tables import Table
from fedvlr_plugin.data.reading.titles import MISSING, clean_title
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER
from fedvlr_plugin.errors import DataError

LEAST = 5
IMAGE_COLUMNS = ("images", "image_url", "image")
_ARRAY = re.compile(r"\barray\((\[[^\[\]]*\])(?:, dtype=[^()]+)?\)")
_NO_COMMA = re.compile(r"\}\s*\{")


@dataclass(frozen=True)
class Raw:
    """What a publisher's files hold.

    Attributes:
        rows: user, item (str), rating, timestamp (int64 or float64), in file order.
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
        rows = _rows(read_raw_table(file, ("user_id", "parent_asin", "rating", "timestamp")), "user_id", "parent_asin")
        described = find(folder, (self.filenames[1], f"meta_{self.category}.csv", "meta_items.csv"))
        if described is None:
            return Raw(rows, files=(file,))
        entries = read_entries(described, "parent_asin", ("title", *IMAGE_COLUMNS), set(rows[ITEM]))
        titles = _first_titles((str(entry["parent_asin"]), entry.get("title")) for entry in entries)
        urls: dict[str, str] = {}
        for entry in entries:
            images = next((entry[name] for name in IMAGE_COLUMNS if name in entry), None)
            if url := image_url(images):
                urls.setdefault(str(entry["parent_asin"]), url)
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
        rows = _rows(read_raw_table(file, ("userId", "movieId", "rating", "timestamp")), "userId", "movieId")
        movies = read_raw_table(described, ("movieId", "title", "genres"))
        ids = columns.tokens(movies, "movieId")
        genres = {
            token: " ".join(text.replace("|", " ").split())
            for token, text in zip(ids, movies["genres"], strict=True)
            if text != "(no genres listed)" and text.strip("| ")
        }
        return Raw(rows, _first_titles(zip(ids, movies["title"], strict=True)), {}, genres, (file, described))

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
        pairs = read_raw_table(file, (ITEM, USER, TIME), [ITEM, USER, TIME])
        if not any(sign.isdigit() for sign in pairs[TIME][0]):
            pairs = pairs.from_row(1)  # a heading that somebody put in
        pairs.require((ITEM, USER, TIME), "Is it the publisher's file of that name?")
        rows = _rows(pairs, USER, ITEM)
        described = find(folder, (self.filenames[1],))
        if described is None:
            return Raw(rows, files=(file,))
        names = read_raw_table(described, (ITEM, "chinese", "english"), [ITEM, "chinese", "english"])
        known = set(rows[ITEM])
        kept = [row for row in zip(names[ITEM], names["chinese"], names["english"], strict=True) if row[0] in known]
        english = _first_titles((item, title) for item, _, title in kept)
        titles = {**_first_titles((item, title) for item, title, _ in kept), **english}
        return Raw(rows, titles, {}, {}, (file, described))

    def filter(self, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        distinct = first_of_pair(rows)
        return [(self.filters[0], distinct), (self.filters[1], k_core(distinct, LEAST))]


def keep_counts(steps: list[tuple[str, pd.DataFrame]]) -> list[dict[str, str | int]]:
    """What is left after each step, for the manifest."""
    return [{"step": name, **counts(rows)} for name, rows in steps]


def _rows(table: Table, user: str, item: str) -> pd.DataFrame:
    """The interactions of a table whose columns of users and items have these names; no rating is 1."""
    frame = pd.DataFrame({USER: columns.tokens(table, user), ITEM: columns.tokens(table, item)}, dtype=object)
    frame[RATING] = columns.numbers(table, RATING) if RATING in table else 1.0
    frame[TIME] = columns.times(table, TIME)
    return frame


def _first_titles(pairs: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Item to its first title that is not missing."""
    out: dict[str, str] = {}
    for token, text in pairs:
        if isinstance(text, str) and (title := clean_title(text)):
            out.setdefault(token, title)
    return out


def image_url(entry: object) -> str | None:
    """The address of the main image, the largest there is, from a metadata entry; None where there is none.

    In jsonl an entry is a list of images, each with addresses by size; in the publisher's data sets on Hugging Face a
    mapping of lists (`{"large": [...], "variant": [...]}`). A csv holds either as text, or the address itself.
    """
    if isinstance(entry, str):
        text = entry.strip()
        if not text.startswith(("[", "{")):
            return None if text in MISSING or len(text.split()) > 1 else text
        entry = _parsed(text)
    if isinstance(entry, dict):
        entry = _images_of_lists(entry)
    images = [image for image in entry if isinstance(image, dict)] if isinstance(entry, list) else []
    for image in sorted(images, key=lambda one: one.get("variant") != "MAIN"):
        for size in ("hi_res", "large", "thumb"):
            if isinstance(image.get(size), str) and image[size] not in MISSING:
                return str(image[size])
    return (
        next((text for text in entry if isinstance(text, str) and "://" in text), None)
        if isinstance(entry, list)
        else None
    )


def _images_of_lists(entry: dict[str, object]) -> list[object]:
    """A mapping of lists (a column each) as a list of mappings; a mapping of plain values is one image."""
    lists = {name: list(values) for name, values in entry.items() if isinstance(values, (list, tuple))}
    if not lists:
        return [entry]
    return [
        {name: values[k] for name, values in lists.items() if k < len(values)}
        for k in range(max(map(len, lists.values())))
    ]


def _parsed(text: str) -> object:
    """A list or mapping from its text: JSON, Python's, or numpy's arrays as pandas writes them; None if it is none."""
    plain = _ARRAY.sub(r"\1", text)
    for spelled in (text, plain, _NO_COMMA.sub("}, {", plain)):
        for parse in (json.loads, ast.literal_eval):
            try:
                found: object = parse(spelled)
                return found
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
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
