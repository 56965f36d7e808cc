"""Write files atomically (temporary file, fsync, rename), read them, and compute their hashes."""

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
OLD_S = 86_400.0  # temporary files of another machine or an earlier version are removed after a day


def write_atomic(
    path: Path,
    content: bytes,
    *,
    private: bool = False,
    error_type: type[FedVLRError] = ResultsError,
    hint: str = ANOTHER,
) -> str:
    """Write a file atomically: a reader sees the old content or the new one, never a part.

    Args:
        path: the file; missing folders are created.
        content: of the file.
        private: give the file mode 0600 and new folders mode 0700; otherwise the umask applies.
        error_type: raised if the folder cannot be written.
        hint: what to do next, for the message.

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
    """Create a folder and its missing parents; with `private` they get mode 0700."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def temporary_name(folder: Path) -> Path:
    """Return a new name in a folder; `remove_leftovers` recognises the process it belongs to."""
    return folder / f"{_own_prefix()}{secrets.token_hex(6)}"


def remove_leftovers(folder: Path, *, deep: bool = True) -> int:
    """Remove temporary files and folders of processes that have ended.

    Args:
        folder: to search.
        deep: whether to search its subfolders too.

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
            continue  # another process removed it, or permission is missing; neither does harm
        removed += 1
    return removed


def _own_prefix() -> str:
    """Return `.tmp-<machine>-<process id>-`, which identifies the process of a temporary file."""
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
    """Read a file; raise `ResultsError` if this fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"cannot read '{path}': {error.strerror or error}. The results folder must be a folder that you may read; "
            "choose another with --results DIR"
        ) from None


def check_writable(folder: Path) -> None:
    """Check that a folder can be written: create it, write and remove a file, remove the files of killed processes.

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
    """Write a file atomically; raise `DataError` if the folder cannot be written."""
    write_atomic(path, content, error_type=DataError, hint="Name a folder that you may write with --out DIR")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a manifest as indented JSON, with the keys in the given order."""
    write_data_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, object]:
    """Read a manifest of `write_json`; raise `DataError` if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"'{path.name}' of '{path.parent.name}' cannot be read: {error}. Make it again") from None
    if not isinstance(content, dict):
        raise DataError(f"'{path.name}' of '{path.parent.name}' is no manifest. Make it again")
    return content


def write_matrix(path: Path, matrix: npt.NDArray[np.generic]) -> None:
    """Write a matrix as `.npy`, atomically."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    write_data_file(path, buffer.getvalue())


def write_lines(path: Path, lines: tuple[str, ...]) -> None:
    """Write texts as lines; raise `DataError` if one of them has a line break."""
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"the token {line!r} holds a line break; tokens must be single lines")
    write_data_file(path, "".join(f"{line}\n" for line in lines).encode())


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
