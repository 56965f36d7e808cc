"""Files found by name: hidden ones of macOS passed over, exact names first, then the same in another Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths in order of name, without `._name` (resource forks of macOS), other dot files and `__MACOSX`."""
    return sorted(path for path in paths if is_visible(path.name) and "__MACOSX" not in path.parts)


def is_visible(name: str) -> bool:
    """Whether a name is not that of a hidden file."""
    return not name.startswith(".")


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC); file systems and archives of macOS give the other one (NFD)."""
    return unicodedata.normalize("NFC", name)


def file_in(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`: the exact name, else the only one that equals it in composed form; None if absent."""
    exact = folder / name
    if exact.is_file():
        return exact
    if name.isascii() or not folder.is_dir():
        return None
    alike = [path for path in folder.iterdir() if composed(path.name) == composed(name) and path.is_file()]
    return alike[0] if len(alike) == 1 else None


def same_name(one: str, other: str) -> bool:
    """Whether two names are equal but for capitals and Unicode form."""
    return composed(one).casefold() == composed(other).casefold()
