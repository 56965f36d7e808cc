"""Columns of text to ids, times, numbers and labels, without loss; the first value that does not fit is named.

Ids stay text from end to end. Times become int64 where they are whole numbers (of any unit) and float64 only where
that keeps every digit. Nothing is rounded, wrapped or guessed to be missing.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.reading.tables import Table
from fedvlr_plugin.errors import DataError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Times = IntArray | FloatArray

_ID = re.compile(r" *\+?0*([0-9]+)(?:\.0*)? *")
_NUMBER = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})? *")
_WHOLE = re.compile(r" *[+-]?[0-9]{1,40} *")
_LABEL = re.compile(r" *([012])(?:\.0*)? *")
_HIDDEN = re.compile("[\x00-\x1f\x7f\ufeff\ud800-\udfff]")
_DATE = re.compile(r" *[0-9]{2,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}")
LIMIT = 2**63
EXACT = 2**53
# seconds in 2001..2286, then thousands of them: the ranges do not meet
_UNITS = ((10**9, "seconds"), (10**12, "milliseconds"), (10**15, "microseconds"), (10**18, "nanoseconds"))


def tokens(table: Table, name: str) -> list[str]:
    """A column of ids, exactly as they stand; `null`, `NA` and the like are ids as others.

    Raises:
        DataError: an empty one, or one with characters that cannot be seen (tab, line break, byte order mark).
    """
    values = table[name]
    for value in set(values):
        if not value:
            raise DataError(f"{table.at(values.index(value))}: the {name} is empty; every row needs one")
        if _HIDDEN.search(value):
            raise DataError(
                f"{table.at(values.index(value))}: the {name} {ascii(value)} holds a character that cannot be seen; take it out"
            )
    return values


def whole_ids(table: Table, name: str) -> list[str]:
    """A column of ids that are whole numbers from 0, as their digits; any length. `7.0` is 7.

    Raises:
        DataError: something else, or two spellings of one number (`7` and `007`), which would become one id.
    """
    values = table[name]
    digits: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for value in dict.fromkeys(values):
        match = _ID.fullmatch(value)
        if match is None:
            hint = (
                " (its last digits are lost in this form)" if re.fullmatch(r" *[0-9.]+[eE]\+?[0-9]+ *", value) else ""
            )
            raise DataError(
                f"{table.at(values.index(value))}: the {name} is {value!r}{hint}; whole numbers from 0 are needed "
                "(itemID is the row of the feature files)"
            )
        digits[value] = match[1]
        if spelled.setdefault(match[1], value) != value:
            raise DataError(
                f"{table.at(values.index(value))}: the {name} {value!r} and {spelled[match[1]]!r} are one number; "
                "write each id in one way"
            )
    return [digits[value] for value in values]


def numbers(table: Table, name: str, what: str | None = None) -> FloatArray:
    """Return a column of finite numbers as float64.

    Raises:
        DataError: names the first row that has none. `what` names the column in messages.
    """
    values = table[name]
    known: dict[str, float] = {}
    for value in set(values):
        number = float(value) if _NUMBER.fullmatch(value) else np.nan
        if not np.isfinite(number):
            row = next(row for row, text in enumerate(values) if not _finite(text))
            raise DataError(f"{table.at(row)}: the {what or name} is {_got(values[row])}; a finite number is needed")
        known[value] = number
    return np.array([known[value] for value in values], dtype=np.float64)


def numbers_or_missing(table: Table, name: str) -> FloatArray:
    """A column of numbers as float64, NaN where the field is empty or says nan; raises `DataError` for other text."""
    values = table[name]
    known = {}
    for row, value in enumerate(values):
        if value not in known:
            missing = value.strip().lower() in ("", "nan", "na", "null", "none")
            if not missing and not _finite(value):
                raise DataError(f"{table.at(row)}: the {name} is {value!r}; a finite number is needed, or nothing")
            known[value] = np.nan if missing else float(value)
    return np.array([known[value] for value in values], dtype=np.float64)


def times(table: Table, name: str) -> Times:
    """Return a column of times: int64 if all are whole numbers, else float64 with all digits kept.

    Raises:
        DataError: a missing, infinite or other value, one beyond 64 bits, or fractions that float64 cannot hold.
    """
    values = table[name]
    whole = [int(value) if _WHOLE.fullmatch(value) else None for value in values]
    exact: list[int | Fraction] = []
    for row, (value, number) in enumerate(zip(values, whole, strict=True)):
        exact.append(number if number is not None else _exact_time(table, name, row, value))
        if not -LIMIT <= exact[-1] < LIMIT:
            raise DataError(
                f"{table.at(row)}: the timestamp is {value!r}, beyond 64 bits; give seconds or milliseconds"
            )
    if all(isinstance(number, int) for number in exact):
        return np.array(exact, dtype=np.int64)
    floats = np.array([float(number) for number in exact], dtype=np.float64)
    for row, (true, rounded) in enumerate(zip(exact, floats.tolist(), strict=True)):
        if true != Fraction(Decimal(repr(rounded))):
            raise DataError(
                f"{table.at(row)}: the timestamp {values[row]!r} has more digits than a fraction can keep (17); give whole "
                "numbers, e.g. nanoseconds"
            )
    return floats


def time_unit(values: Times) -> str:
    """The unit of times by their size: seconds, milliseconds, microseconds or nanoseconds since 1970, or why not.

    Spreads over two units are said, since their order is then not the order in time.
    """
    if not len(values):
        return "unknown"
    units = {unit_of(float(value)) for value in (np.min(values), np.max(values))}
    if len(units) == 1:
        return units.pop()
    low, high = unit_of(float(np.min(values))), unit_of(float(np.max(values)))
    return f"mixed (from {low} to {high})" if "other" not in (low, high) else "other"


def unit_of(value: float) -> str:
    """The unit of one time since 1970 between 1973 and 2286, else `other`."""
    for least, name in _UNITS:
        if least / 10 <= value < 10 * least:
            return name
    return "other"


def labels(table: Table, name: str) -> IntArray:
    """Split labels as int64: 0 train, 1 valid, 2 test; `2.0` is 2. Raises `DataError` for anything else."""
    known: dict[str, int] = {}
    for value in dict.fromkeys(table[name]):
        match = _LABEL.fullmatch(value)
        if match is None:
            others = [v for v in dict.fromkeys(table[name]) if not _LABEL.fullmatch(v)]
            got = ", ".join(v if _WHOLE.fullmatch(v) else repr(v) for v in others[:8])
            raise DataError(
                f"{table.at(table[name].index(value))}: split labels must be 0, 1 or 2, got [{got}]; 0 is train, 1 valid, "
                "2 test"
            )
        known[value] = int(match[1])
    return np.array([known[value] for value in table[name]], dtype=np.int64)


def _finite(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and bool(np.isfinite(float(text)))


def _got(value: str) -> str:
    if not value.strip():
        return "missing"
    return f"{value!r}" + (", a date" if _DATE.match(value) else "")


def _exact_time(table: Table, name: str, row: int, value: str) -> int | Fraction:
    """Return the exact value of a number with a decimal point or an exponent."""
    if not _finite(value):
        seconds = ", e.g. seconds since 1970" if _DATE.match(value) else ""
        raise DataError(f"{table.at(row)}: the timestamp is {_got(value)}; a finite number is needed{seconds}")
    number = Fraction(Decimal(value.strip()))
    return int(number) if number.denominator == 1 else number
