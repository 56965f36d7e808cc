"""Find files by name: skip hidden files, prefer exact names, accept another Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path


def visible(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by name, without `._name` (resource forks of macOS), other dot files and `__MACOSX`."""
    return sorted(path for path in paths if is_visible(path.name) and "__MACOSX" not in path.parts)


def is_visible(name: str) -> bool:
    """Return whether a name is not that of a hidden file."""
    return not name.startswith(".")


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); file systems and archives of macOS give the other one (NFD)."""
    return unicodedata.normalize("NFC", name)


def file_in(folder: Path, name: str) -> Path | None:
    """Find a file in a folder: by the exact name, else the only one with the same composed form; None if absent."""
    exact = folder / name
    if exact.is_file():
        return exact
    if name.isascii() or not folder.is_dir():
        return None
    alike = [path for path in folder.iterdir() if composed(path.name) == composed(name) and path.is_file()]
    return alike[0] if len(alike) == 1 else None


def same_name(one: str, other: str) -> bool:
    """Return whether two names are equal except for capitals and Unicode form."""
    return composed(one).casefold() == composed(other).casefold()
