"""Finds and reads the files that publishers ship: csv, jsonl or tsv, plain, gzipped or inside a zip.

A raw folder may hold the files anywhere below it, zipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedvlr_plugin.data.reading.encodings import decode_text, what_it_is
from fedvlr_plugin.data.reading.json_lines import read_json_lines
from fedvlr_plugin.data.reading.names import is_visible, visible
from fedvlr_plugin.data.reading.tables import Table, parse_table
from fedvlr_plugin.errors import DataError


@dataclass(frozen=True)
class RawFile:
    """A file on disk, or a member of a zip on disk.

    Attributes:
        path: the file, or the zip.
        member: name inside the zip, or None.
        root: the raw folder.
    """

    path: Path
    member: str | None = None
    root: Path | None = None

    @property
    def name(self) -> str:
        """The name for messages and manifests: from the raw folder on, without folders of this machine."""
        shown = self.path.name if self.root is None else self.path.relative_to(self.root).as_posix()
        return f"{shown}:{self.member}" if self.member else shown

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
    """The file of one of `names` under `folder` (itself a folder, or one zip), also as `.gz` and inside zips.

    Exact names come before names in other capitals, plain files before members of zips. Hidden files are passed over.

    Returns:
        The file, None if there is none.

    Raises:
        DataError: `folder` is neither, a zip is damaged, or several files could be meant and differ.
    """
    if not folder.exists():
        raise DataError(f"the raw folder '{folder}' is not there; name the folder (or the zip) that holds {names[0]}")
    root = folder.parent if folder.is_file() else folder
    files = [folder] if folder.is_file() else visible(p for p in folder.rglob("*") if p.is_file())
    files = [path for path in files if all(is_visible(part) for part in path.relative_to(root).parts)]
    wanted = [spelled for name in names for spelled in (name, f"{name}.gz")]
    folded = {name.casefold() for name in wanted}
    found = [(path.name, RawFile(path, None, root)) for path in files if path.name.casefold() in folded]
    for path in files:
        if path.suffix.casefold() == ".zip":
            try:
                members = _members(path)
            except DataError:
                if found:  # what is needed is there; this one may belong to something else
                    continue
                raise
            named = [(member.rpartition("/")[2], RawFile(path, member, root)) for member in members]
            found += [(name, file) for name, file in named if name.casefold() in folded]
    exact = [file for name, file in found if name in wanted]
    candidates = exact or [file for _, file in found]
    if not candidates:
        return None
    if len(candidates) > 1 and len({_content_hash(file) for file in candidates}) > 1:
        raise DataError(
            f"under the raw folder '{folder.name}' there are {' and '.join(file.name for file in candidates)}, which differ; "
            "which of them is meant? Move the others away"
        )
    return candidates[0]


def _members(path: Path) -> list[str]:
    """The visible files of a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        with path.open("rb") as stream:
            meaning = what_it_is(stream.read(512))
        if meaning is not None and "zip" not in meaning:
            raise DataError(f"'{path.name}' is {meaning}") from None
        raise DataError(
            f"'{path.name}' is no readable zip (cut off while loading?); delete it and fetch it again"
        ) from None
    return [name for name in names if all(is_visible(p) and p != "__MACOSX" for p in name.split("/") if p)]


def _content_hash(file: RawFile) -> str:
    """sha256 of the plain bytes, however they are packed; raises `DataError` when they are damaged."""
    digest = hashlib.sha256()
    with _damage_named(file), file.open() as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _damage_named(file: RawFile) -> Iterator[None]:
    """Turns what a damaged archive raises into one line."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"'{file.path.name}' is damaged ({why}); delete it and fetch it again") from None
    except OSError as error:
        raise DataError(f"'{file.name}' cannot be read as a table: {' '.join(str(error).split())[:200]}") from None


def read_raw_table(file: RawFile, needed: tuple[str, ...], names: list[str] | None = None) -> Table:
    """A csv or tab-separated file as text.

    Args:
        file: what to read.
        needed: columns that must be there.
        names: the columns of a file without a heading; further columns are left out.

    Raises:
        DataError: it cannot be read, is empty, or lacks a column; the first bad line is named.
    """
    where = f"'{file.name}'"
    with _damage_named(file), file.open() as stream:
        content = stream.read()
    table = parse_table(decode_text(content, where), where, needed=needed, names=names)
    table.require(needed, "Is it the publisher's file of that name?")
    return table


def read_entries(file: RawFile, key: str, columns: tuple[str, ...], wanted: Container[str]) -> list[dict[str, object]]:
    """The entries of a file of metadata, csv or jsonl (told by its name).

    Args:
        file: what to read.
        key: name of the column with the item.
        columns: what else to keep where it is there (the rest may be gigabytes).
        wanted: items to keep.

    Returns:
        In file order, each with `key` (text) and the columns that it has.

    Raises:
        DataError: it cannot be read, has no entries, or none has the key.
    """
    if not file.name.removesuffix(".gz").endswith((".jsonl", ".json")):
        table = read_raw_table(file, (key, columns[0]))
        kept = [name for name in (key, *columns) if name in table]
        rows = zip(*(table[name] for name in kept), strict=True)
        return [dict(zip(kept, row, strict=True)) for row in rows if row[0] in wanted]
    where, seen, out = f"'{file.name}'", 0, []
    with _damage_named(file), file.open() as stream:
        for _, entry in read_json_lines(stream, where):
            seen += key in entry
            if isinstance(token := entry.get(key), str) and token in wanted:
                out.append({name: entry[name] for name in (key, *columns) if name in entry})
    if not seen:
        raise DataError(f"{where} has no entry with '{key}'. Is it the publisher's file of that name?")
    return out
