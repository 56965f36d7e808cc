"""Finds and reads the files that publishers ship: csv, jsonl or tsv, plain, gzipped or inside a zip.

A raw folder may hold the files anywhere below it, zipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd

from fedvlr_plugin.errors import DataError


@dataclass(frozen=True)
class RawFile:
    """A file on disk, or a member of a zip on disk.

    Attributes:
        path: the file, or the zip. member: name inside the zip, or None.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The name for messages and manifests, without folders of this machine."""
        return f"{self.path.name}:{self.member}" if self.member else self.path.name

    def open(self) -> IO[bytes]:
        """The plain bytes as a stream; a `.gz` is unpacked on the way."""
        stream: IO[bytes] = (
            self.path.open("rb") if self.member is None else zipfile.ZipFile(self.path).open(self.member)
        )
        if (self.member or self.path.name).endswith(".gz"):
            return io.BufferedReader(gzip.GzipFile(fileobj=stream))
        return stream

    def facts(self) -> dict[str, str | int]:
        """Name, size and sha256 of the file as it lies on disk (of the whole zip for a member)."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return {"name": self.name, "bytes": self.path.stat().st_size, "sha256": digest.hexdigest()}


def find(folder: Path, names: tuple[str, ...]) -> RawFile | None:
    """The first of `names` under `folder` (itself a folder, or one zip), also as `.gz` and inside zips; None if absent.

    Raises:
        DataError: `folder` is neither, or a zip is damaged.
    """
    if not folder.exists():
        raise DataError(f"the raw folder '{folder}' is not there; name the folder (or the zip) that holds {names[0]}")
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    for name in names:
        for wanted in (name, f"{name}.gz"):
            for path in files:
                if path.name.casefold() == wanted.casefold():
                    return RawFile(path)
    for path in files:
        if path.suffix.casefold() == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    members = archive.namelist()
            except zipfile.BadZipFile:
                raise DataError(
                    f"'{path.name}' is no readable zip (cut off while loading?); delete it and fetch it again"
                ) from None
            for name in names:
                for member in members:
                    if member.rpartition("/")[2].casefold() in (name.casefold(), f"{name.casefold()}.gz"):
                        return RawFile(path, member)
    return None


def table(
    file: RawFile, needed: tuple[str, ...], names: list[str] | None = None, optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    """A csv as strings, or the `needed` and `optional` columns of a jsonl.

    Args:
        file: what to read; jsonl is told by its name. needed: columns that must be there. names: the columns of a
            file without a heading; a heading that a user put in is told by its third field and skipped. optional: what a jsonl is read for, too (the rest may be gigabytes).

    Raises:
        DataError: it cannot be read, is empty, or lacks a column.
    """
    plain = file.name.removesuffix(".gz")
    try:
        with file.open() as stream:
            if plain.endswith((".jsonl", ".json")):
                frame = _json_lines(stream, (*needed, *optional))
            else:
                tabs = stream.readline().count(b"\t") >= len(names or needed) - 1  # a title may hold a tab, too
                with file.open() as again:
                    frame = pd.read_csv(
                        again,
                        sep="\t" if tabs else ",",
                        dtype=str,
                        keep_default_na=False,
                        header=None if names else 0,
                        names=names,
                        usecols=range(len(names)) if names else None,  # else a further column would move all of them
                        encoding="utf-8-sig",
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"'{file.path.name}' is damaged ({why}); delete it and fetch it again") from None
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise DataError(f"'{file.name}' cannot be read as a table: {' '.join(str(error).split())[:200]}") from None
    if missing := [column for column in needed if column not in frame.columns]:
        raise DataError(
            f"'{file.name}' lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}. "
            "Is it the publisher's file of that name?"
        )
    if frame.empty:
        raise DataError(f"'{file.name}' has no rows")
    return frame


def _json_lines(stream: IO[bytes], columns: tuple[str, ...]) -> pd.DataFrame:
    """Those of the `columns` that some line has; raises `ValueError` naming the line that is no JSON object."""
    rows: list[list[object]] = []
    seen: set[str] = set()
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from None
        if not isinstance(entry, dict):
            raise ValueError(f"line {number} is no JSON object")
        seen.update(entry)
        rows.append([entry.get(column) for column in columns])
    frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
    return frame[[column for column in columns if column in seen]] if rows else frame


def numbers(frame: pd.DataFrame, column: str, where: str) -> pd.Series[float]:
    """A column as float64; raises `DataError` naming the first row that is no number."""
    values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    if values.isna().any():
        row = int(values.isna().to_numpy().argmax())
        raise DataError(f"'{where}': {column} of row {row + 1} is {frame[column].iloc[row]!r}, a number is needed")
    return values
