"""Every table of this package is written here: one writer each for the terminal, Markdown, LaTeX and CSV.

Cells are plain text. Each writer escapes what its format would take for markup: `|` in Markdown, the special characters
in LaTeX, and in CSV a text that a spreadsheet would run as a formula.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from tabulate import tabulate

from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.reporting.grid import Grid, Value, format_value

Align = Literal["left", "right"]
PLAIN_WIDTH = 160  # columns of a terminal that is a file or a pipe
LATEX_PADDING = 2  # columns that a heading takes beside its letters in the source of a plain LaTeX table
FORMULA_STARTS = ("=", "+", "-", "@", "\t")
LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "†": r"\dag{}", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$",
    "▽": r"$\triangledown$", "–": "--", "≠": r"$\neq$", "ε": r"$\varepsilon$", "δ": r"$\delta$", "∞": r"$\infty$",
}  # fmt: skip


def terminal(plain_width: int = PLAIN_WIDTH) -> Console:
    """Return a terminal as wide as it is, or of `plain_width` columns where the output is a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=plain_width)


def print_grid(grid: Grid, console: Console) -> None:
    """Print a table and its notes; columns are aligned by the first line."""
    drawn = RichTable()
    for heading, sample in zip(grid.headings, grid.lines[0] if grid.lines else grid.headings, strict=True):
        drawn.add_column(heading, justify="left" if isinstance(sample, str) else "right")
    for line in grid.lines:
        drawn.add_row(*(format_value(value) for value in line))
    console.print(drawn)
    for note in grid.notes:
        console.print(note, highlight=False)


def write_grid(grid: Grid, stem: Path, text_columns: Collection[str] | None = None) -> list[Path]:
    """Write a table as `<stem>.md`, `.csv` and `.tex`, each in one step; return the three paths.

    Args:
        grid: the table.
        stem: the path without its suffix.
        text_columns: as in `markdown_grid`.
    """
    texts = {
        ".md": markdown_grid(grid, text_columns),
        ".csv": csv_table(grid.headings, grid.lines),
        ".tex": latex_grid(grid),
    }
    paths = [stem.with_name(stem.name + suffix) for suffix in texts]  # a data set may have a dot in its name
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomic(path, text.encode())
    return paths


def markdown_table(
    headings: Sequence[str], lines: Iterable[Sequence[str]], align: Sequence[Align] | None = None
) -> str:
    """Return a Markdown table.

    Args:
        headings: one per column.
        lines: a text per column each.
        align: of every column; None leaves all on the left.
    """
    body = [[escape_markdown(text) for text in line] for line in lines]
    head = [escape_markdown(heading) for heading in headings]
    return tabulate(body, head, tablefmt="pipe", colalign=align, disable_numparse=True)


def markdown_grid(grid: Grid, text_columns: Collection[str] | None = None) -> str:
    """Return a table and its notes in Markdown.

    Args:
        grid: the table.
        text_columns: headings of the columns that stay on the left while all others go to the right; None leaves all
            on the left.
    """
    align: list[Align] | None = None
    if text_columns is not None:
        align = ["left" if heading in text_columns else "right" for heading in grid.headings]
    title = f"# {grid.title}\n\n" if grid.title else ""
    return title + markdown_table(grid.headings, texts_of(grid), align) + "\n\n" + "\n".join(grid.notes) + "\n"


def escape_markdown(text: str) -> str:
    """Return `text` for a cell of a Markdown table: bars escaped, line breaks as spaces."""
    return text.replace("|", r"\|").replace("\n", " ")


def bold_markdown(text: str) -> str:
    """Return `text` in bold type."""
    return f"**{text}**"


def latex_tabular(columns: str, head: Sequence[str], body: Sequence[str], rules: Collection[int] = ()) -> list[str]:
    """Return the lines of a `tabular` environment with the rules of booktabs.

    Args:
        columns: its column types, e.g. `lrr`.
        head: the lines above the middle rule, finished (`latex_line`).
        body: the lines below it.
        rules: indices of the lines of the body after which a rule is drawn.
    """
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *head, r"\midrule"]
    for number, line in enumerate(body):
        lines += [line, r"\midrule"] if number in rules else [line]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def latex_line(cells: Iterable[str]) -> str:
    """Return one line of a `tabular`; the cells are escaped already."""
    return " & ".join(cells) + r" \\"


def latex_grid(grid: Grid) -> str:
    """Return a plain table in LaTeX, its columns padded to the same width; the notes are left out."""
    lines = [list(grid.headings), *texts_of(grid)]
    widths = [
        max([len(heading) + LATEX_PADDING, *(len(line[column]) for line in lines[1:])])
        for column, heading in enumerate(grid.headings)
    ]
    drawn = [
        " " + latex_line([escape_latex(f"{text:<{width}}") for text, width in zip(line, widths, strict=True)])
        for line in lines
    ]
    return "\n".join(latex_tabular("l" * len(grid.headings), drawn[:1], drawn[1:])) + "\n"


def escape_latex(text: str) -> str:
    """Return `text` with LaTeX's special characters, and the signs that this package uses, as commands."""
    return "".join(LATEX_CHARACTERS.get(character, character) for character in text)


def csv_table(headings: Sequence[str], lines: Iterable[Sequence[Value]]) -> str:
    """Return a table as CSV: numbers unrounded, nothing for None, texts that would be formulas with a leading quote.

    A carriage return in a text becomes a line feed: Python's writer does not quote it, and the line would end there.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([defuse(heading) for heading in headings])
    writer.writerows([_csv_value(value) for value in line] for line in lines)
    return buffer.getvalue()


def _csv_value(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    return defuse(value.replace("\r\n", "\n").replace("\r", "\n"))


def defuse(text: str) -> str:
    """Return `text` as a spreadsheet can take it: with a leading `'` where it would be run as a formula.

    `-0.31` and `+2` are numbers and stay; `=A1`, `+ours beats ...`, `@import` do not.
    """
    if not text.startswith(FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def texts_of(grid: Grid) -> list[list[str]]:
    """Return the lines of a table as they are shown."""
    return [[format_value(value) for value in line] for line in grid.lines]
