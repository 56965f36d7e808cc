"""The pieces of the HTML report: sortable tables, sections that open, names for places on the page. Strings in and out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from fedvlr_plugin.reporting.grid import Grid, format_value, is_number
from fedvlr_plugin.reporting.table2.formats import Block

LONG = 30  # letters from which a column of text is given room


@dataclass(frozen=True)
class HtmlCell:
    """What a cell shows: its text, bold if `best`, a text to hover, and a place on the page that it leads to."""

    text: str
    best: bool = False
    hover: str = ""
    target: str = ""


def grid_table(grid: Grid) -> str:
    """A plain table and its notes."""
    lines = [[HtmlCell(format_value(value)) for value in line] for line in grid.lines]
    return sortable_table([("", heading) for heading in grid.headings], lines) + paragraphs(grid.notes)


def block_table(rows: Sequence[str], kind: Sequence[Block], ends: Collection[int]) -> str:
    """The columns of several data sets beside the names of rows."""
    headings = [("", "row"), *((block.title, heading) for block in kind for heading in block.headings)]
    lines = [
        [HtmlCell(row), *(HtmlCell(text.text, text.best) for block in kind for text in block.lines[number])]
        for number, row in enumerate(rows)
    ]
    return sortable_table(headings, lines, ends)


def sortable_table(
    headings: Sequence[tuple[str, str]],
    lines: Sequence[Sequence[HtmlCell]],
    ends: Collection[int] = (),
    name: str = "",
) -> str:
    """A table whose headings sort it when clicked.

    Args:
        headings: by column what stands above it and its neighbours (or nothing), and its own heading.
        lines: the cells.
        ends: lines with a rule below, while the table is in its first order.
        name: of the table's place on the page, if it has one.
    """
    columns = range(len(headings))
    text = [not all(is_number(line[column].text) for line in lines) for column in columns]
    long = [text[column] and max((len(line[column].text) for line in lines), default=0) > LONG for column in columns]
    body = "".join(
        ("<tr class='end'>" if number in ends else "<tr>")
        + "".join(_cell(cell, text[column], long[column]) for column, cell in enumerate(line))
        + "</tr>\n"
        for number, line in enumerate(lines)
    )
    place = f' id="{escape(name)}"' if name else ""
    return (
        f"<div class='wide'><table{place}><thead>{_head(headings, text)}</thead><tbody>\n{body}</tbody></table></div>"
    )


def _head(headings: Sequence[tuple[str, str]], text: Sequence[bool]) -> str:
    def own(column: int, rows: int) -> str:
        kind = "text" if text[column] else "number"
        span = f" rowspan='{rows}'" if rows > 1 else ""
        return f"<th class='{kind}' data-column='{column}' tabindex='0'{span}>{escape(headings[column][1])}</th>"

    if not any(group for group, _ in headings):
        return "<tr>" + "".join(own(column, 1) for column in range(len(headings))) + "</tr>"
    above, below = "", ""
    for group, members in itertools.groupby(range(len(headings)), key=lambda column: headings[column][0]):
        columns = list(members)
        if group:
            above += f"<th class='group' colspan='{len(columns)}'>{escape(group)}</th>"
            below += "".join(own(column, 1) for column in columns)
        else:
            above += "".join(own(column, 2) for column in columns)
    return f"<tr>{above}</tr><tr>{below}</tr>"


def _cell(cell: HtmlCell, text: bool, long: bool) -> str:
    kinds = ["text"] * text + ["long"] * long + ["best"] * cell.best
    shape = f" class='{' '.join(kinds)}'" if kinds else ""
    hover = f' title="{escape(cell.hover)}"' if cell.hover else ""
    content = escape(cell.text)
    if cell.target:
        content = f'<a href="#{escape(cell.target)}">{content}</a>'
    return f"<td{shape}{hover}>{content}</td>"


def paragraphs(lines: Sequence[str]) -> str:
    """One paragraph per line."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def details(title: str, content: str, name: str = "") -> str:
    """A section that opens when its title is clicked, or when something leads to `name`."""
    place = f' id="{escape(name)}"' if name else ""
    return f"<details{place}><summary>{escape(title)}</summary>{content}</details>"


def slug(text: str) -> str:
    """`text` as part of the name of a place."""
    return "".join(c if c.isalnum() else "-" for c in text)
