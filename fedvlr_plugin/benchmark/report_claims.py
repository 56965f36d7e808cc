"""The first section of the report: which of the paper's claims hold in the stored runs, which do not.

A sentence per claim that counts, and below it the pairs themselves. Imports `claims`, `html_parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from fedvlr_plugin.benchmark.claims import Finding, claims_grid, findings
from fedvlr_plugin.benchmark.feature_labels import warned
from fedvlr_plugin.benchmark.grids import Grid
from fedvlr_plugin.benchmark.html_parts import grid_table
from fedvlr_plugin.benchmark.table import Table
from fedvlr_plugin.experiment.store import ResultsStore

NOTHING = "No two rows that a claim is about are stored on one data set, so nothing can be said of the claims yet."


def claims_section(store: ResultsStore, tables: Sequence[tuple[str, Table]]) -> str:
    """For each titled table that says something of a claim: what holds, what does not, what is undecided."""
    parts = []
    for title, table in tables:
        found = findings(store, table)
        if found:
            sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in counted(found))
            parts.append(f"<h3>{escape(title)}</h3><ul>{sentences}</ul>{grid_table(_filled(found, table))}")
    body = "\n".join(parts) or f"<p>{escape(NOTHING)}</p>"
    return f'<h2 id="claims">What the runs say of the paper&#x27;s claims</h2>\n{body}'


def counted(found: Sequence[Finding]) -> list[str]:
    """One sentence per claim: in how many comparisons it holds, does not hold, or is undecided."""
    sentences = []
    for claim in dict.fromkeys(f.claim for f in found):
        words = [f.word for f in found if f.claim == claim]
        sentences.append(
            f"{claim}: holds in {words.count('holds')}, does not hold in {words.count('does not hold')}, "
            f"undecided in {words.count('undecided')} of {len(words)} comparisons (rows, data sets, metrics)"
        )
    return sentences


def _filled(found: Sequence[Finding], table: Table) -> Grid:
    """The grid of claims without empty cells: `none` where no pair is, a dash where the paper has no figures."""
    grid = claims_grid(found)
    paper = grid.headings.index("paper")
    lines = tuple(
        tuple(value or ("–" if column == paper else "none") for column, value in enumerate(line)) for line in grid.lines
    )
    return warned(replace(grid, lines=lines), [record for cell in table.cells.values() for record in cell.records])
