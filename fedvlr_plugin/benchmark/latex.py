"""Table 2 for LaTeX, with booktabs. Spelling only; imports `grids`, `layouts` and `table`."""

from __future__ import annotations

from fedvlr_plugin.benchmark.grids import LATEX_LETTERS
from fedvlr_plugin.benchmark.layouts import Text, blocks, group_ends
from fedvlr_plugin.benchmark.table import Table, caption

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **LATEX_LETTERS,
}  # fmt: skip


def latex(table: Table) -> str:
    """A `table*` environment; needs the packages booktabs, graphicx and amssymb, and says so in a comment."""
    kind = blocks(table)
    columns = "l" + "".join("r" * len(block.headings) for block in kind)
    lines = [
        r"% \usepackage{booktabs,graphicx,amssymb}",
        r"\begin{table*}",
        rf"\caption{{{escape(' '.join(caption(table)))}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{{len(b.headings)}}}{{c}}{{{escape(b.title)}}}" for b in kind)]) + r" \\",
        " & ".join(["row", *(escape(heading) for block in kind for heading in block.headings)]) + r" \\",
        r"\midrule",
    ]
    ends = group_ends(table.rows)
    for i, row in enumerate(table.rows):
        cells = [_cell(text) for block in kind for text in block.lines[i]]
        lines.append(" & ".join([escape(row), *cells]) + r" \\")
        if i in ends:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]) + "\n"


def _cell(text: Text) -> str:
    return rf"\textbf{{{escape(text.text)}}}" if text.best else escape(text.text)


def escape(text: str) -> str:
    """`text` with LaTeX's special characters, and those of our own, spelled out."""
    return "".join(SPECIAL.get(character, character) for character in text)
