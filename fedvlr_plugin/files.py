"""Files that are either whole or not there (temporary file, fsync, rename), and their hashes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import DataError, FedVLRError, ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TEMPORARY = ".tmp-"
ANOTHER = "The results folder must be a folder that you may write; choose another with --results DIR"


def write_atomic(
    path: Path, content: bytes, *, error_type: type[FedVLRError] = ResultsError, hint: str = ANOTHER
) -> str:
    """Writes `content` to `path` in one step and returns its sha256; a reader never sees half of it.

    Raises `error_type`, with `hint` as what to do next, when the folder cannot be written.
    """
    handle, name = -1, ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        name = ""
    except OSError as error:
        raise error_type(f"cannot write '{path}': {error.strerror or error}. {hint}") from None
    finally:
        if name:
            Path(name).unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The file's content; raises `ResultsError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"cannot read '{path}': {error.strerror or error}. The results folder must be a folder that you may read; "
            "choose another with --results DIR"
        ) from None


def check_writable(folder: Path) -> None:
    """Creates the folder and a file in it, and takes the file away; raises `ResultsError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=TEMPORARY, dir=folder) as file:
            file.write(b"can this folder be written?")
            file.flush()
    except OSError as error:
        raise ResultsError(f"cannot write '{folder}': {error.strerror or error}. {ANOTHER}") from None


def write_data_file(path: Path, content: bytes) -> None:
    """Writes in one step; a reader never sees half of it. Raises `DataError` when the folder cannot be written."""
    write_atomic(path, content, error_type=DataError, hint="Name a folder that you may write with --out DIR")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """A manifest: indented, keys in the given order."""
    write_data_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, object]:
    """A manifest that `write_json` wrote; raises `DataError` when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"'{path.name}' of '{path.parent.name}' cannot be read: {error}. Make it again") from None
    if not isinstance(content, dict):
        raise DataError(f"'{path.name}' of '{path.parent.name}' is no manifest. Make it again")
    return content


def write_matrix(path: Path, matrix: npt.NDArray[np.generic]) -> None:
    """A `.npy`, written whole."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    write_data_file(path, buffer.getvalue())


def write_lines(path: Path, lines: tuple[str, ...]) -> None:
    """One line each; raises `DataError` when one of them holds a line break."""
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"the token {line!r} holds a line break; tokens must be single lines")
    write_data_file(path, "".join(f"{line}\n" for line in lines).encode())


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
