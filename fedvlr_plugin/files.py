"""Files that are either whole or not there: temporary file, fsync, rename. For all rooms; imports `errors` only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from fedvlr_plugin.errors import FedVLRError, ResultsError

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
