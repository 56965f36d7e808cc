"""Files that are either whole or not there: temporary file, fsync, rename. Imports `errors` only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from fedvlr_plugin.errors import ResultsError

TEMPORARY = ".tmp-"


def write_atomic(path: Path, content: bytes) -> str:
    """Writes `content` to `path` in one step and returns its sha256; a reader never sees half of it.

    Raises `ResultsError` when the folder cannot be written.
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
        raise ResultsError(_cannot("write", path, error)) from None
    finally:
        if name:
            Path(name).unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The file's content; raises `ResultsError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(_cannot("read", path, error)) from None


def check_writable(folder: Path) -> None:
    """Creates the folder and a file in it, and takes the file away; raises `ResultsError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=TEMPORARY, dir=folder) as file:
            file.write(b"can this folder be written?")
            file.flush()
    except OSError as error:
        raise ResultsError(_cannot("write", folder, error)) from None


def _cannot(verb: str, path: Path, error: OSError) -> str:
    return (
        f"cannot {verb} '{path}': {error.strerror or error}. The results folder must be a folder that you may {verb}; "
        "choose another with --results DIR"
    )
