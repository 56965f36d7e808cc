"""Fetches a file over HTTP: resumed after a cut, checked against length and sha256, in place only when whole.

What has come so far lies beside the target as `<name>.part`, with the server's mark of the version (`ETag` or
`Last-Modified`) in `<name>.part.mark`: another version on the server starts anew.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import fedvlr_plugin
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.files import sha256_of, write_data_file

PIECE = 1 << 18
OnBytes = Callable[[int, int | None], None]


class _Interrupted(Exception):
    """The transfer stopped before its end and may go on."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    on_bytes: OnBytes | None = None,
    timeout_s: float = 30.0,
    attempts: int = 4,
    pause_s: float = 1.0,
    by_hand: str = "",
) -> bool:
    """Brings `url` to `target`.

    Args:
        sha256: what the file must have; None = only the length is checked. on_bytes: called with (bytes here, bytes in
            all or None). timeout_s: longest silence of the server. attempts: transfers at most, each goes on where the
            last one stopped, with `pause_s`, then twice as long, between them. by_hand: what an error advises; default:
            to fetch this file by hand.

    Returns:
        False when `target` was there already with the right checksum (or there is none to check), else True.

    Raises:
        DataError: unreachable, refused, cut every time, or a wrong checksum; one line with what to do.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"'{url}' is no http or https address")
    if target.is_file() and (sha256 is None or sha256_of(target) == sha256):
        return False
    part, mark = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.mark")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create '{target.parent}': {error.strerror}; name another folder with --raw") from None
    by_hand = (
        by_hand
        or f"fetch it by hand, put it as '{target.name}' into '{target.parent}' and run again without --download"
    )
    for attempt in range(1, attempts + 1):
        try:
            _transfer(url, part, mark, on_bytes, timeout_s)
            break
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {' '.join(str(error.reason).split())}"  # loops give three lines
            if error.code < 500 and error.code not in (408, 429):
                raise DataError(f"{url}: {reason}; {by_hand}") from None
        except urllib.error.URLError as error:
            reason = f"cannot be reached ({error.reason})"
        except (_Interrupted, TimeoutError, http.client.HTTPException, ConnectionError) as error:
            here = part.stat().st_size if part.is_file() else 0
            reason = f"the transfer stopped after {here:,} bytes ({error or type(error).__name__}), which are kept"
        except OSError as error:
            raise DataError(
                f"cannot write '{part}': {error.strerror or error}; name another folder with --raw"
            ) from None
        if attempt == attempts:
            raise DataError(f"{url}: {reason}; run the same command again to go on, or {by_hand}")
        time.sleep(pause_s * 2 ** (attempt - 1))
    found = sha256_of(part)
    mark.unlink(missing_ok=True)
    if sha256 is not None and found != sha256:
        part.unlink()
        raise DataError(
            f"{url}: wrong checksum, sha256 {found} instead of {sha256}; it was thrown away. Try again, or {by_hand}"
        )
    os.replace(part, target)
    return True


def _transfer(url: str, part: Path, mark: Path, on_bytes: OnBytes | None, timeout_s: float) -> None:
    """One request; appends to `part` where the server lets it. Raises `_Interrupted` when less came than announced."""
    here = part.stat().st_size if part.is_file() and mark.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"fedvlr-plugin/{fedvlr_plugin.__version__}"})
    request.add_header("Accept-Encoding", "identity")
    if here:
        request.add_header("Range", f"bytes={here}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # nothing beyond what is here, or another file: ask for all of it
            part.unlink()
            return _transfer(url, part, mark, on_bytes, timeout_s)
        raise
    with answer:
        resumed = answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {here}-")
        here = here if resumed else 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length is not None else None
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if version and not version.startswith("W/"):
            write_data_file(mark, version.encode())
        else:
            mark.unlink(missing_ok=True)  # without a strong mark a later resume could mix two versions
        with part.open("ab" if resumed else "wb") as out:
            while piece := answer.read1(PIECE):
                out.write(piece)
                here += len(piece)
                if on_bytes is not None:
                    on_bytes(here, total)
    if total is not None and here != total:
        raise _Interrupted(f"{total:,} bytes were announced")
