"""Files of the data room that are either whole or not there; hashes of files. Imports `files`, `errors`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedvlr_plugin import files
from fedvlr_plugin.errors import DataError


def write_atomic(path: Path, content: bytes) -> None:
    """Writes in one step; a reader never sees half of it. Raises `DataError` when the folder cannot be written."""
    files.write_atomic(path, content, error_type=DataError, hint="Name a folder that you may write with --out DIR")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """A manifest: indented, keys in the given order."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, object]:
    """A manifest that `write_json` wrote; raises `DataError` when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path.name}' of '{path.parent.name}' cannot be read: {error}. Make it again") from None
    if not isinstance(content, dict):
        raise DataError(f"'{path.name}' of '{path.parent.name}' is no manifest. Make it again")
    return content


def write_matrix(path: Path, matrix: npt.NDArray[np.generic]) -> None:
    """A `.npy`, written whole."""
    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def write_lines(path: Path, lines: tuple[str, ...]) -> None:
    """One line each; raises `DataError` when one of them holds a line break."""
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"the token {line!r} holds a line break; tokens must be single lines")
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
