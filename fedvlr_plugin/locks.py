"""Lock a file or folder for one writer.

The lock is a kernel lock (`flock`) on a file next to the target. The kernel releases it when its holder ends, even if it
is killed. The lock file names its holder for messages.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedvlr_plugin.errors import DataError, FedVLRError

POLL_S = 0.2


@contextmanager
def only_writer(
    target: Path,
    what: str,
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    error_type: type[FedVLRError] = DataError,
) -> Iterator[None]:
    """Hold the lock `<target>.lock` within the block.

    Args:
        target: the file or folder that is written.
        what: name of the target, for messages.
        wait_s: seconds to wait for another holder; 0 does not wait.
        on_wait: called once with one line if another process holds the lock.
        error_type: raised if another process holds the lock, or the folder cannot be written.
    """
    path = target.with_name(f"{target.name}.lock")
    handle = _open(path, error_type)
    try:
        until, told = time.monotonic() + wait_s, False
        while not _take(handle):
            holder = _holder(path)
            if time.monotonic() >= until:
                raise error_type(
                    f"{what} is being made by another process{holder}; wait until it has finished, or stop it and run this "
                    "command again: what it has done is kept"
                )
            if on_wait is not None and not told:
                on_wait(f"waiting for another process{holder} that makes {what} ...")
                told = True
            time.sleep(POLL_S)
            os.close(handle)
            handle = _open(path, error_type)
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while the lock is held: a waiting process opens a new file
    finally:
        os.close(handle)


def _open(path: Path, error_type: type[FedVLRError]) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise error_type(
            f"cannot write '{path}': {error.strerror or error}; name a folder that you may write"
        ) from None


def _take(handle: int) -> bool:
    """Take the lock if it is free; return whether it was, and the file has not been removed since it was opened."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return os.fstat(handle).st_nlink > 0


def _holder(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f" ({text})" if text else ""
