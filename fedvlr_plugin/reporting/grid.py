"""A plain table: headings, lines of values, notes. `table_formats` writes it, `html.elements` and `table_image` draw it."""

from __future__ import annotations

import re
from dataclasses import dataclass

Value = str | float | int | None
EMPTY = "–"
NUMBER = re.compile(r"[-+]?\d|[–∞≠]|$")


@dataclass(frozen=True)
class Grid:
    """A table of strings and numbers.

    Attributes:
        headings: one per column.
        lines: the rows from top to bottom, a value per column. Numbers are rounded when they are shown, not in the CSV.
        notes: what a reader must know, one statement each, written below the table.
        title: written above the table in Markdown; empty for none.
    """

    headings: tuple[str, ...]
    lines: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    title: str = ""


def format_value(value: Value) -> str:
    """Return a value as it is shown: two decimals for a float, a dash for nothing."""
    if value is None:
        return EMPTY
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def format_mean_sd(mean: float, sd: float | None, digits: int = 2) -> str:
    """Return `38.24 ± 1.10`.

    Args:
        mean: the mean.
        sd: the standard deviation; None (a single value) leaves the second part out.
        digits: decimals of both.
    """
    return f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def format_interval(low: float, high: float, digits: int = 2) -> str:
    """Return the two ends of an interval as `37.10..39.50`."""
    return f"{low:.{digits}f}..{high:.{digits}f}"


def format_count(number: int, noun: str) -> str:
    """Return `1 seed` or `3 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_number(text: str) -> bool:
    """Whether a cell belongs in a column of numbers: a number, with what follows it, or nothing."""
    return NUMBER.match(text) is not None
