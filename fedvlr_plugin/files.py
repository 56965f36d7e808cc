"""Files that are either whole or not there (temporary file, fsync, rename), and their hashes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import DataError, FedVLRError, ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TEMPORARY = ".tmp-"
UNFINISHED = ".unfinished"  # in a folder whose files are being replaced
ANOTHER = "The results folder must be a folder that you may write; choose another with --results DIR"
OLD_S = 86_400.0  # temporary files of another machine, or of an earlier version, count as left behind after a day


def write_atomic(
    path: Path,
    content: bytes,
    *,
    private: bool = False,
    error_type: type[FedVLRError] = ResultsError,
    hint: str = ANOTHER,
) -> str:
    """Write a file in one step: a reader sees the old content or the new one, never half of it.

    Args:
        path: the file; missing folders are made.
        content: what to write.
        private: mode 0600, and 0700 for folders that are made; otherwise the process's umask decides.
        error_type: raised when the folder cannot be written, with `hint` as what to do next.
        hint: see `error_type`.

    Returns:
        sha256 of the content.
    """
    temporary: Path | None = None
    try:
        make_folder(path.parent, private=private)
        temporary = temporary_name(path.parent)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise error_type(f"cannot write '{path}': {error.strerror or error}. {hint}") from None
    finally:
        if temporary is not None:
            with suppress(OSError):  # what went wrong is told already
                temporary.unlink()
    return hashlib.sha256(content).hexdigest()


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make a folder and its parents; those that are made have mode 0700 where they are private."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def temporary_name(folder: Path) -> Path:
    """A name in the folder that nobody has, known as this process's by `remove_leftovers`."""
    return folder / f"{_own_prefix()}{secrets.token_hex(6)}"


def remove_leftovers(folder: Path, *, deep: bool = True) -> int:
    """Remove temporary files and folders whose process has ended without removing them.

    Args:
        folder: where to look.
        deep: look into its folders, too.

    Returns:
        How many were removed.
    """
    removed = 0
    find = folder.rglob if deep else folder.glob
    for path in list(find(f"{TEMPORARY}*")) if folder.is_dir() else ():
        if not _is_leftover(path):
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        except OSError:
            continue  # another process was faster, or we may not; it harms nothing
        removed += 1
    return removed


def _own_prefix() -> str:
    """`.tmp-<machine>-<process id>-`: says whose a temporary file is."""
    return f"{TEMPORARY}{_machine()}-{os.getpid()}-"


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_leftover(path: Path) -> bool:
    parts = path.name.removeprefix(TEMPORARY).split("-")
    if len(parts) == 3 and parts[0] == _machine() and parts[1].isdigit():
        return not _is_running(int(parts[1]))
    try:
        return time.time() - path.stat().st_mtime > OLD_S
    except OSError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
    """Create the folder and a file in it, and remove both the file and what killed processes left there.

    Raises:
        ResultsError: the folder cannot be written.
    """
    try:
        make_folder(folder)
        remove_leftovers(folder)
        with tempfile.NamedTemporaryFile(prefix=_own_prefix(), dir=folder) as file:
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
