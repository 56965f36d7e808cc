"""A plain table of strings and numbers in all forms: terminal, Markdown, CSV, LaTeX.
Tables of the bench and the audit, as Markdown and CSV files.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from tabulate import tabulate

from fedvlr_plugin.files import write_atomic

PLAIN_WIDTH = 160
Value = str | float | int | None
LATEX_LETTERS = {
    "±": r"$\pm$", "Δ": r"$\Delta$", "†": r"\dag{}", "▼": r"$\blacktriangledown$", "▽": r"$\triangledown$", "–": "--",
    "≠": r"$\neq$", "ε": r"$\varepsilon$", "δ": r"$\delta$", "∞": r"$\infty$",
}  # fmt: skip
NUMBER = re.compile(r"[-+]?\d|[–∞≠]|$")


@dataclass(frozen=True)
class Grid:
    """Headings and lines; numbers are rounded when they are shown, not in the CSV. `notes` go below."""

    headings: tuple[str, ...]
    lines: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()


def shown(value: Value) -> str:
    """Two decimals for a float, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def is_number(text: str) -> bool:
    """Whether a cell belongs in a column of numbers: a number, with what follows it, or nothing."""
    return NUMBER.match(text) is not None


def print_grid(grid: Grid, console: Console) -> None:
    """Prints the grid and its notes."""
    drawn = RichTable()
    for heading, sample in zip(grid.headings, grid.lines[0] if grid.lines else grid.headings, strict=True):
        drawn.add_column(heading, justify="left" if isinstance(sample, str) else "right")
    for line in grid.lines:
        drawn.add_row(*(shown(value) for value in line))
    console.print(drawn)
    for note in grid.notes:
        console.print(note, highlight=False)


def terminal() -> Console:
    """A terminal as wide as it is, or `PLAIN_WIDTH` columns where the output is a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def markdown_grid(grid: Grid) -> str:
    """The grid and its notes in Markdown."""
    return _drawn(grid, "pipe") + "\n\n" + "\n".join(grid.notes) + "\n"


def _drawn(grid: Grid, form: str) -> str:
    body = [[shown(value) for value in line] for line in grid.lines]
    return tabulate(body, grid.headings, tablefmt=form, disable_numparse=True)


def write_grid(grid: Grid, stem: Path) -> list[Path]:
    """Writes `<stem>.md`, `.csv` and `.tex`; returns the paths."""
    booktabs = _drawn(grid, "latex_booktabs")
    forms = {
        ".md": markdown_grid(grid),
        ".csv": pd.DataFrame(list(grid.lines), columns=list(grid.headings)).to_csv(index=False),
        ".tex": "".join(LATEX_LETTERS.get(letter, letter) for letter in booktabs) + "\n",
    }
    paths = [stem.with_name(stem.name + suffix) for suffix in forms]  # a data set may have a dot in its name
    for path, text in zip(paths, forms.values(), strict=True):
        write_atomic(path, text.encode())
    return paths


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], title: str, notes: Sequence[str]) -> str:
    """A title, the table and notes under it."""
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]) + "\n"


def write_table(
    stem: Path, head: Sequence[str], rows: Sequence[Sequence[str]], title: str, notes: Sequence[str]
) -> str:
    """Writes `stem`.md and `stem`.csv in one step each and returns the Markdown; names may hold dots."""
    text = markdown(head, rows, title, notes)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_atomic(stem.with_name(stem.name + ".md"), text.encode())
    write_atomic(stem.with_name(stem.name + ".csv"), buffer.getvalue().encode())
    return text
