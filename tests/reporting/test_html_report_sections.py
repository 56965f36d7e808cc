"""The report opens with the claims, and its tables of results have no row that was not run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the report needs the extra [report]")

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.claims import Finding
from fedvlr_plugin.reporting.comparisons import Comparison
from fedvlr_plugin.reporting.evidence import counted
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.html.elements import grid_table
from fedvlr_plugin.reporting.html.report import NOTHING, _weight, build_report, full_parts
from fedvlr_plugin.reporting.stored_runs import stored_table

ROWS = {
    "ku": ["popularity", "cold-first", "VBPR", "FedAvg", "FedAvg+MLP", "FedAvg+ours"],
    "ml": ["popularity", "FedAvg", "FedAvg+ours"],
    "tiny": ["popularity", "FedAvg", "FedAvg+ours"],
}
LEFT_OUT = "Not run on ML, tiny under this profile: cold-first, VBPR, FedAvg+MLP."


@pytest.fixture
def store(tmp_path: Path, tiny: PreparedData, fake) -> ResultsStore:
    """FedAvg+ours finds every positive, FedAvg none: a claim that holds."""
    above = {"FedAvg": 90, "FedAvg+ours": 0}
    store = ResultsStore(tmp_path / "r")
    for dataset, rows in ROWS.items():
        data = PreparedData(dataset, tiny.interactions, tiny.features)
        for spec in specs_for(PROFILES["smoke"], [dataset], rows, 5):
            result = fake(spec, data=data)
            result = dataclasses.replace(result, best_round=min(1, result.best_round))
            if spec.row in above:
                ranks = dataclasses.replace(result.test, above=result.test.above * 0 + above[spec.row])
                result = dataclasses.replace(result, test=ranks)
            store.append(result, data, "smoke")
    return store


def cells(table: str) -> list[list[str]]:
    """Texts of the cells of a table, line by line."""
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    found = [re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL) for line in lines]
    return [[re.sub("<[^>]*>", "", cell) for cell in line] for line in found if line]


def test_data_sets_with_the_same_rows_share_a_table_without_empty_cells(store: ResultsStore) -> None:
    parts = full_parts(stored_table(store, "smoke", "corrected"))
    assert [(part.datasets, len(part.rows)) for part in parts] == [(("ku",), 6), (("ml", "tiny"), 3)]
    assert all((row, dataset) in part.cells for part in parts for row in part.rows for dataset in part.datasets)
    page = build_report(store)
    tables = {name: cells(table) for name, table in re.findall(r'<table id="([\w-]+)">(.*?)</table>', page, re.S)}
    assert {name: [line[0] for line in lines] for name, lines in tables.items()} == {
        "s0-table-ku": ROWS["ku"], "s0-table-ml-tiny": ROWS["ml"]
    }  # fmt: skip
    assert not [cell for lines in tables.values() for line in lines for cell in line if cell == "–"]
    assert page.count(LEFT_OUT) == 1 and "Not run on KU" not in page
    figures = page[page.index("<summary>The paper&#x27;s figures</summary>") :].split("</details>")[0]
    names = [line[0] for line in cells(figures)]
    assert names == ["VBPR", "FedAvg", "FedAvg+MLP", "FedAvg+ours", "FedAvg", "FedAvg+ours"], "the paper has no floors"
    assert "not run" not in figures and all(cell for line in cells(figures) for cell in line)


def test_the_page_opens_with_what_holds_and_what_does_not(store: ResultsStore) -> None:
    page = build_report(store)
    start, first = page.index('id="claims"'), page.index('id="s0-table')
    sentence = "+ours beats the vanilla row: holds in 6, does not hold in 0, undecided in 0, not enough runs in 0 of 6"
    assert start < page.index(sentence) < first
    table = page[start:first]
    assert "<details" not in table, "nothing has to be opened to read it"
    lines = cells(table)
    assert lines[0] == [
        "+ours beats the vanilla row",
        "KU",
        "HR@50",
        "1 of 1",
        "FedAvg +100.00",
        "none",
        "none",
        "none",
    ]
    assert all(cell for line in lines for cell in line), "no cell is empty"
    assert '<a href="#claims">' in page[:start]


def test_sentences_count_each_word() -> None:
    comparisons = [Comparison(1.0, 0.01, 0.01, True), Comparison(-1.0, 0.01, 0.01, True), Comparison(1.0, 0.01, 0.5, True),
                   Comparison(1.0, 0.01, 1.0, True), Comparison(1.0, 0.0, 0.0, False)]  # fmt: skip
    (sentence,) = counted([Finding("A beats B", "ku", "hr@50", "A", "B", each, True) for each in comparisons])
    assert sentence.startswith(
        "A beats B: holds in 1, does not hold in 1, undecided in 2, not enough runs in 1 of 5 comparisons"
    )


def test_a_store_without_pairs_says_that_nothing_can_be_said(tmp_path: Path, tiny: PreparedData, fake) -> None:
    store, data = ResultsStore(tmp_path / "few"), PreparedData("ku", tiny.interactions, tiny.features)
    for spec in specs_for(PROFILES["smoke"], ["ku"], ["FedAvg"], 1):
        store.append(fake(spec, data=data), data, "smoke")
    assert NOTHING in build_report(store)


def test_searched_results_come_first_and_the_corrected_protocol_before_the_other() -> None:
    found = [("quick", "corrected"), ("own", "corrected"), ("paper", "as_released"), ("paper", "corrected")]
    assert sorted(found, key=_weight) == [
        ("paper", "corrected"), ("paper", "as_released"), ("quick", "corrected"), ("own", "corrected"),
    ]  # fmt: skip


def test_columns_of_long_text_are_given_room_and_what_cannot_be_compared_stands_with_the_numbers() -> None:
    page = grid_table(Grid(("row", "Δ", "why"), (("a", "≠", "short"), ("b", "+1.0", "x" * 31))))
    assert page.count("<td class='text long'>") == 2 and "<td>≠</td><td class='text long'>short</td>" in page
