"""Tables of the bench and the audit, as Markdown and CSV files. Imports `files`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fedvlr_plugin.files import write_atomic


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
