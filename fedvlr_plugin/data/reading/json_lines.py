"""Read JSON lines; numbers stay text, so that ids keep their digits, and errors name the first bad line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from fedvlr_plugin.data.reading.encodings import MARK, likely_encoding, what_it_is
from fedvlr_plugin.errors import DataError


def read_json_lines(stream: Iterable[bytes], where: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number and the object of each line; empty lines are skipped.

    Args:
        stream: lines of bytes, one JSON object each.
        where: how messages name the file.

    Yields:
        Values as JSON has them, but numbers as text and NaN as None.

    Raises:
        DataError: a line that is not UTF-8, no JSON, or no object.
    """
    for number, line in enumerate(stream, 1):
        if number == 1 and (meaning := what_it_is(line[:512])):
            raise DataError(f"{where} is {meaning}")
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8").lstrip(MARK) if number == 1 else line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}, line {number}: not UTF-8 (byte 0x{line[error.start]:02X}); its encoding is probably "
                f"{likely_encoding(line)}. Save it as UTF-8"
            ) from None
        try:
            entry = json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_number)
        except RecursionError:
            raise DataError(f"{where} cannot be read as a table: line {number} is nested too deeply") from None
        except ValueError as error:
            raise DataError(f"{where} cannot be read as a table: line {number} is no JSON: {error}") from None
        if not isinstance(entry, dict):
            raise DataError(f"{where} cannot be read as a table: line {number} is no JSON object")
        yield number, entry


def _no_number(name: str) -> None:
    return None
