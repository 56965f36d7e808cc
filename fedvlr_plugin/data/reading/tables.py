"""The one reader of text tables: csv, tab-separated text and RecBole's atomic files, as text, line by line.

* csv (comma): a field may stand in quotes, quotes inside are doubled (RFC 4180).
* tab-separated, atomic files: no quoting. A field is freed of quotes only where it is unmistakably what a csv writer
  makes of a text with quotes (in quotes, all quotes inside doubled, at least one pair): such files are made by
  `DataFrame.to_csv(sep="\\t")`. Where the heading itself stands in quotes, the whole file follows the rules of csv.

Every line must have as many fields as the heading; the first that has not is named. Values stay text: nothing is
guessed to be missing or a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedvlr_plugin.data.reading.encodings import read_text
from fedvlr_plugin.errors import DataError, did_you_mean

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "::": "double colons", "|": "bars", " ": "blanks"}


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        where: how messages name the file.
        cells: column name to its values, all of one length, in the order of the file.
        lines: number of the line (from 1) where each row begins.
    """

    where: str
    cells: Mapping[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: object) -> bool:
        return name in self.cells

    def __getitem__(self, name: str) -> list[str]:
        return self.cells[name]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.cells)

    def at(self, row: int) -> str:
        """Where a row stands, for messages: `"shop/inter.csv, line 7"`."""
        return f"{self.where}, line {self.lines[row]}"

    def from_row(self, start: int) -> Table:
        """The same table without its first `start` rows."""
        return replace(
            self, cells={name: values[start:] for name, values in self.cells.items()}, lines=self.lines[start:]
        )

    def renamed(self, rename: Callable[[str], str]) -> Table:
        """The same table under other names of columns; raises `DataError` when two become one."""
        names = [rename(name) for name in self.cells]
        _check_distinct(names, self.where)
        return replace(self, cells=dict(zip(names, self.cells.values(), strict=True)))

    def require(self, needed: Sequence[str], advice: str) -> None:
        """Refuse a table that lacks one of the `needed` columns or has no rows.

        Raises:
            DataError: with the names that are there, the nearest one, and `advice`.
        """
        if missing := [name for name in needed if name not in self.cells]:
            near = did_you_mean(missing[0], [name for name in self.cells if name.strip()])
            raise DataError(
                f"{self.where} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(shown, self.cells))}; "
                f"{advice}{near and '.' + near}"
            )
        if not len(self):
            raise DataError(f"{self.where} has no rows")


def shown(name: str) -> str:
    """A name for messages; one with blanks at its ends or characters that cannot be seen is spelled out."""
    return name if name and name == name.strip() and name.isprintable() else ascii(name)


def read_table(
    path: Path,
    where: str,
    *,
    separators: Sequence[str] = (",", "\t"),
    needed: Sequence[str] = (),
    names: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Table:
    """Read a table from a file; see `parse_table`. Raises `DataError` when it cannot be read, too."""
    return parse_table(read_text(path, where, encoding), where, separators=separators, needed=needed, names=names)


def parse_table(
    text: str,
    where: str,
    *,
    separators: Sequence[str] = (",", "\t"),
    needed: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> Table:
    """Read a table from text with `\\n` line ends.

    Args:
        text: the whole file.
        where: how messages name it.
        separators: those that the format allows; of several, the one under which the heading has most of the
            `needed` columns, the first on a tie.
        needed: names of columns that tell the separator, without types.
        names: the columns of a file without a heading; further columns are left out.

    Raises:
        DataError: no heading, a column named twice, a line with another number of fields, quotes that do not fit, or
            fields separated by something else. The first bad line is named.
    """
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line), None)
    if first is None:
        if names is not None:
            raise DataError(f"{where} has no rows")
        raise DataError(f"{where} cannot be read as a table: it is empty")
    separator = _choose(lines[first], separators, needed, len(names) if names is not None else 0)
    rows, numbers = _split(lines, separator, where, quoted=separator != "\t" or lines[first].startswith('"'))
    if names is None:
        heading, rows, numbers = rows[0], rows[1:], numbers[1:]
        _check_separator(lines[first], heading, separators, needed, where)
    else:
        heading = [*names, *("" for _ in range(len(rows[0]) - len(names)))]
        if len(rows[0]) < len(names):
            raise DataError(
                f"{where}, line {numbers[0]} has {len(rows[0])} field(s), {len(names)} are needed: {', '.join(names)}"
                + _other_separator(lines[first], separator, len(names))
            )
    _check_distinct(heading, where)
    width = len(heading)
    for row, number in zip(rows, numbers, strict=True):
        if len(row) != width:
            _refuse_count(row, number, width, lines[number - 1], separator, where, headed=names is None)
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in heading]
    return Table(where, {name: column for name, column in zip(heading, columns, strict=True) if name}, numbers)


def _choose(heading: str, separators: Sequence[str], needed: Sequence[str], width: int) -> str:
    """The separator of a file, see `parse_table`; `width` fields at least where there is no heading."""
    if len(separators) == 1:
        return separators[0]
    if width:
        return next((s for s in reversed(separators) if heading.count(s) >= width - 1), separators[0])
    return max(separators, key=lambda separator: (_known(heading, separator, needed), -separators.index(separator)))


def _known(heading: str, separator: str, needed: Sequence[str]) -> int:
    """How many of the `needed` columns a heading has when it is split at `separator`; types are left out."""
    parts = heading.split() if separator == " " else heading.split(separator)
    names = {part.strip('"').partition(":")[0] for part in parts}
    return len(names & set(needed)) if needed else len(parts) - 1


def _check_separator(
    line: str, heading: list[str], separators: Sequence[str], needed: Sequence[str], where: str
) -> None:
    """Refuse a heading that has the needed columns only under a separator that the format does not have."""
    plain = {name.partition(":")[0] for name in heading}
    have = len(plain & set(needed))
    if have == len(needed):
        return
    for other, spelled in SEPARATORS.items():
        if other not in separators and _known(line, other, needed) > have:
            allowed = " or ".join(SEPARATORS.get(s, repr(s)) for s in separators)
            raise DataError(
                f"{where}, line 1: its fields are separated by {spelled}; the separator must be {allowed}. "
                "Write the file anew with that separator"
            )


def _split(lines: list[str], separator: str, where: str, *, quoted: bool) -> tuple[list[list[str]], list[int]]:
    """Fields of every line that is not empty, and the number of the line where they begin."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    place, end = 0, len(lines)
    while place < end:
        line = lines[place]
        if line:
            numbers.append(place + 1)
            if '"' not in line:
                rows.append(line.split(separator))
            elif quoted:
                fields, last = _quoted_fields(lines, place, separator, where)
                if last > place:
                    _check_swallowed(lines, place, last, separator, len(rows[0]) if rows else len(fields), where)
                rows.append(fields)
                place = last
            else:
                rows.append([_undo_csv(field) for field in line.split(separator)])
        place += 1
    return rows, numbers


def _undo_csv(field: str) -> str:
    """The text that a csv writer put into quotes, if it is unmistakably that; else the field as it is."""
    if len(field) > 3 and field[0] == field[-1] == '"':
        inner = field[1:-1]
        if '""' in inner and '"' not in inner.replace('""', ""):
            return inner.replace('""', '"')
    return field


def _quoted_fields(lines: list[str], place: int, separator: str, where: str) -> tuple[list[str], int]:
    """The fields of the record that begins at `lines[place]`, and the place of its last line."""
    fields: list[str] = []
    line, at, opened = lines[place], 0, place
    while True:
        if line.startswith('"', at):
            parts: list[str] = []
            opened, at = place, at + 1
            while True:
                close = line.find('"', at)
                if close < 0:
                    parts += [line[at:], "\n"]
                    place += 1
                    if place == len(lines):
                        raise DataError(
                            f"{where}, line {opened + 1}: a quote is opened and never closed; close it, or double it and "
                            "put the field into quotes"
                        )
                    line, at = lines[place], 0
                    continue
                parts.append(line[at:close])
                at = close + 1
                if not line.startswith('"', at):
                    break
                parts.append('"')
                at += 1
            if at < len(line) and not line.startswith(separator, at):
                raise DataError(
                    f"{where}, line {place + 1}: text after a closing quote (opened in line {opened + 1}); quotes inside a "
                    'field must be doubled: ""'
                )
            fields.append("".join(parts))
        else:
            stop = line.find(separator, at)
            stop = len(line) if stop < 0 else stop
            fields.append(line[at:stop])
            at = stop
        if at >= len(line):
            return fields, place
        at += len(separator)


def _check_swallowed(lines: list[str], first: int, last: int, separator: str, width: int, where: str) -> None:
    """Refuse a field over several lines each of which is a row of its own: two lone quotes, not one long text.

    A line is taken for a row when it has the right number of fields and begins as the first one does (a number, or
    none). A field with doubled quotes was written by a program that knows csv, and is left alone.
    """
    swallowed = lines[first : last + 1]
    rows = [line.split(separator) for line in swallowed]
    like_rows = all(
        len(row) == width and row[0].strip('"').isdigit() == rows[0][0].strip('"').isdigit() for row in rows
    )
    if width > 1 and like_rows and not any('""' in line for line in swallowed):
        raise DataError(
            f"{where}, line {first + 1}: a quote that is closed only in line {last + 1} would make one field of whole lines; "
            'a lone quote in a field must be doubled and the field put into quotes: "2"" pipe"'
        )


def _check_distinct(heading: Sequence[str], where: str) -> None:
    named = [name for name in heading if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are called '{twice}'; keep one of them")


def _refuse_count(
    row: list[str], number: int, width: int, line: str, separator: str, where: str, *, headed: bool
) -> None:
    """Raise for a line with another number of fields than the heading (or the first line)."""
    reference = "the heading has" if headed else "the first line has"
    hint = ""
    if len(row) == width + 1 and not row[-1]:
        hint = "; a separator too many at its end"
    elif len(row) < width:
        hint = _other_separator(line, separator, width)
    elif separator == ",":
        hint = "; a field that holds a comma must stand in quotes"
    raise DataError(f"{where}, line {number} has {len(row)} field(s), {reference} {width}{hint}")


def _other_separator(line: str, separator: str, width: int) -> str:
    for other, spelled in SEPARATORS.items():
        parts = line.split() if other == " " else line.split(other)
        if other != separator and len(parts) == width > 1:
            return f"; its fields seem to be separated by {spelled}, the separator must be {SEPARATORS.get(separator, separator)}"
    return ""
