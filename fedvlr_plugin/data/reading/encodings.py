"""Bytes of a user's file to text: UTF-8 with or without a byte order mark, or one line that says what else it is.

A file that is no text at all (a Git LFS pointer, a web page, an archive, a spreadsheet) is named as what it is.
"""

from __future__ import annotations

from pathlib import Path

from fedvlr_plugin.errors import DataError

MARK = "\ufeff"
_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself; run git lfs pull"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx); unpack it, or save it as text"),
    (b"\x1f\x8b", "packed by gzip; unpack it"),
    (b"PAR1", "a parquet file; save it as text"),
    (b"\x93NUMPY", "a numpy array, not text"),
    (b"SQLite format 3", "an SQLite database; save the table as text"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls); save it as text"),
    (b"\x00\x05\x16\x07", "a file of macOS beside the real one (._ before the name)"),
)
_UTF16 = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def what_it_is(start: bytes) -> str | None:
    """What a file is that is neither text nor data of ours, by its first bytes; None when nothing is recognised.

    Args:
        start: the first bytes, 512 are enough.
    """
    for magic, meaning in _MAGIC:
        if start.startswith(magic):
            return meaning
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page (of a file host?), not the file itself; download it again"
    return None


def read_text(path: Path, where: str, encoding: str = "utf-8") -> str:
    """The text of a file; see `decode_text`. Raises `DataError` when it cannot be opened, too."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    return decode_text(content, where, encoding)


def decode_text(content: bytes, where: str, encoding: str = "utf-8") -> str:
    """Text with `\\n` line ends and without the byte order mark.

    Args:
        content: the whole file.
        where: how messages name the file.
        encoding: UTF-8 unless the user names another one (RecBole's key `encoding`).

    Raises:
        DataError: not in that encoding (names the line and the likely one), no text, a NUL byte, or a byte order
            mark at the beginning of a later line (files that were joined).
    """
    if meaning := what_it_is(content[:512]):
        raise DataError(f"{where} is {meaning}")
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    if utf8:
        for mark, name in _UTF16:
            if content.startswith(mark):
                raise DataError(f"{where}, line 1: not UTF-8; the mark at its beginning says {name}. Save it as UTF-8")
    try:
        text = content.decode("utf-8" if utf8 else encoding)
    except LookupError:
        raise DataError(f"{where}: no encoding is called '{encoding}'; use e.g. utf-8, gb18030, cp1252") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if not utf8:
            raise DataError(f"{where}, line {line}: not {encoding}, as `encoding` says") from None
        raise DataError(
            f"{where}, line {line}: not UTF-8 (byte 0x{content[error.start]:02X}); its encoding is probably "
            f"{likely_encoding(content)}. Save it as UTF-8"
        ) from None
    text = text.lstrip(MARK) if text.startswith(MARK) else text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise DataError(f"{where}, line {line}: a NUL byte; is it UTF-16, or no text? Save it as UTF-8 text")
    if (place := text.find(f"\n{MARK}")) >= 0:
        line = text.count("\n", 0, place) + 2
        raise DataError(
            f"{where}, line {line}: a byte order mark (BOM) at the beginning of the line; were files joined? Take it out"
        )
    return text


def likely_encoding(content: bytes) -> str:
    """The most likely encoding of bytes that are not UTF-8, a guess for messages.

    Characters of East Asian encodings and of Cyrillic are runs of bytes above 127; in Western text they stand alone.
    """
    if content[:400].count(0) > len(content[:400]) // 4:
        return "UTF-16"
    high = [place for place, byte in enumerate(content[:200_000]) if byte > 127]
    near = set(high)
    in_runs = sum(place - 1 in near or place + 1 in near for place in high)
    if in_runs >= 0.8 * len(high):
        values = {content[place] for place in high}
        if min(values) >= 0xC0 or values - {0xA8, 0xB8} == {v for v in values if v >= 0xC0}:
            return "Windows-1251"
        for name, shown in (("gb18030", "GB18030 (GBK)"), ("big5", "Big5"), ("shift_jis", "Shift JIS")):
            try:
                content.decode(name)
            except UnicodeDecodeError:
                continue
            return shown
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "Windows-1252"
