"""The writers of tables: one per format, each escaping what its format would take for markup."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedvlr_plugin.reporting.grid import Grid, format_interval, format_mean_sd, format_value
from fedvlr_plugin.reporting.table_formats import (
    csv_table,
    defuse,
    latex_grid,
    markdown_grid,
    markdown_table,
    write_grid,
)

GRID = Grid(("row", "HR@50"), (("A|B", 39.0), ("=1+1", None)), ("A note.",))


def test_numbers_by_hand() -> None:
    assert format_mean_sd(38.237, 1.096) == "38.24 ± 1.10" and format_mean_sd(38.237, None) == "38.24"
    assert format_mean_sd(0.5, 0.125, digits=3) == "0.500 ± 0.125"
    assert format_interval(1.0, 2.346) == "1.00..2.35"
    assert [format_value(value) for value in (None, 1.005, 3, "x")] == ["–", "1.00", "3", "x"]


def test_a_bar_does_not_end_a_cell_of_markdown() -> None:
    text = markdown_grid(GRID)
    assert text == "| row   | HR@50   |\n|:------|:--------|\n| A\\|B  | 39.00   |\n| =1+1  | –       |\n\nA note.\n"
    assert markdown_table(("a\nb",), [("c\nd",)]).count("\n") == 2, "a line break would end the row"


def test_columns_of_numbers_stand_on_the_right() -> None:
    separator = markdown_grid(GRID, text_columns=("row",)).splitlines()[1]
    assert separator.startswith("|:-") and separator.endswith("-:|")


def test_latex_escapes_and_pads() -> None:
    assert latex_grid(Grid(("a_b", "±"), (("5 %", 1.0),))) == (
        "\\begin{tabular}{ll}\n\\toprule\n a\\_b   & $\\pm$    \\\\\n\\midrule\n 5 \\%   & 1.00 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


@pytest.mark.parametrize("text", ["=A1", "+ours beats it", "-x", "@import", "\t=1", "-2.00 ± 0.10", "--"])
def test_a_formula_is_defused(text: str) -> None:
    assert defuse(text) == f"'{text}"


@pytest.mark.parametrize("text", ["+0.52", "-3", "-1e-3", "FedAvg -2.00", "", "–", "a=b"])
def test_a_number_and_plain_text_stay(text: str) -> None:
    assert defuse(text) == text


TEXTS = st.text(alphabet="=+-@\t\r\n|,'\"a1 ", max_size=5)
VALUES = st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), TEXTS)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(VALUES, VALUES), max_size=4))
def test_csv_comes_back_as_it_was_and_starts_no_formula(lines: list[tuple[str | int | float | None, ...]]) -> None:
    found = list(csv.reader(io.StringIO(csv_table(("a", "b"), lines), newline="")))
    assert found[0] == ["a", "b"] and len(found) == len(lines) + 1
    for line, cells in zip(lines, found[1:], strict=True):
        for value, cell in zip(line, cells, strict=True):
            if isinstance(value, str):
                text = value.replace("\r\n", "\n").replace("\r", "\n")
                assert cell in (text, f"'{text}")
                assert not cell.startswith(("=", "@"))
            else:
                assert cell == ("" if value is None else repr(value))


def test_a_data_set_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    paths = write_grid(GRID, tmp_path / "table-v1.2")
    assert [path.name for path in paths] == ["table-v1.2.md", "table-v1.2.csv", "table-v1.2.tex"]
    assert paths[1].read_text() == "row,HR@50\nA|B,39.0\n'=1+1,\n"
