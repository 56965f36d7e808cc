"""Mean ranks and the comparison of two stores."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli.main import app
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.mean_ranks import compare_stores, critical_difference, rank_grid
from fedvlr_plugin.reporting.stored_runs import stored_table

ROWS = ["FedAvg", "FCF", "FedNCF"]


@pytest.fixture
def fill(tmp_path: Path, tiny: PreparedData, fake):
    """Stores runs whose positives stand at a rank given per row, on three data sets."""

    def fill(name: str, above: dict[str, int], datasets: tuple[str, ...] = ("a", "b", "c")) -> ResultsStore:
        store = ResultsStore(tmp_path / name)
        for spec in specs_for(PROFILES["smoke"], datasets, list(above), 1):
            data = PreparedData(spec.dataset, tiny.interactions, tiny.features)
            result = fake(spec, data=data)
            test = dataclasses.replace(result.test, above=result.test.above * 0 + above[spec.row])
            store.append(dataclasses.replace(result, test=test), data, "smoke")
        return store

    return fill


def test_the_critical_difference_is_that_of_demsar() -> None:
    # Demsar (2006), table 5: q = 2.343 for 3 and 2.728 for 5 rows at alpha 0.05
    assert critical_difference(3, 10) == pytest.approx(2.343 * (3 * 4 / 60) ** 0.5, abs=0.002)
    assert critical_difference(5, 30) == pytest.approx(2.728 * (5 * 6 / 180) ** 0.5, abs=0.002)


def test_rows_are_ranked_by_ndcg_and_ties_share(fill) -> None:
    store = fill("x", {"FedAvg": 9, "FCF": 3, "FedNCF": 9})
    grid = rank_grid(stored_table(store, "smoke", "corrected"))
    assert [(line[0], line[1]) for line in grid.lines] == [("FCF", 1.0), ("FedAvg", 2.5), ("FedNCF", 2.5)]
    assert grid.headings[-1] == "c" and all(len(line) == len(grid.headings) for line in grid.lines)
    assert grid.notes[0].endswith("No row is that far from the best."), "three data sets cannot tell 1.5 ranks apart"
    assert len(grid.notes) == 1, "all rows are ranked"


def test_a_row_that_is_told_from_the_best_is_marked(fill) -> None:
    store = fill("x", {"FedAvg": 0, "FCF": 3, "FedNCF": 9}, tuple("abcdefgh"))
    grid = rank_grid(stored_table(store, "smoke", "corrected"))
    assert grid.headings[-1] == "Nemenyi" and "No row" not in grid.notes[0]
    assert [line[-1] for line in grid.lines] == ["", "", "worse than the best"], "2 ranks of 1.17, 1 rank of 1.17"


def test_rows_that_are_not_ranked_are_named_with_the_reason(fill) -> None:
    fill("x", {"FedAvg": 9, "FCF": 3})
    fill("x", {"FedNCF": 1, "PFedRec": 1}, ("a", "c"))
    table = stored_table(fill("x", {"FedRAP": 1}, ("b",)), "smoke", "corrected")
    grid = rank_grid(table)
    assert [line[0] for line in grid.lines] == ["FCF", "FedAvg"]
    assert grid.notes[1:] == (
        "Not ranked, because not run on b: FedNCF, PFedRec.", "Not ranked, because not run on a, c: FedRAP."
    )  # fmt: skip
    few = fill("few", {"FedAvg": 9}, ("a", "b"))
    with pytest.raises(ResultsError, match=r"got 1 row on 2 data sets \(Not ranked, because not run on b: FCF\);"):
        fill("few", {"FCF": 9}, ("a",))
        rank_grid(stored_table(few, "smoke", "corrected"))


def test_ranks_need_two_data_sets(fill) -> None:
    with pytest.raises(ResultsError, match="at least two data sets"):
        rank_grid(stored_table(fill("x", {"FedAvg": 1, "FCF": 2}, ("a",)), "smoke", "corrected"))


def test_two_stores_are_compared_cell_by_cell(fill, tmp_path: Path) -> None:
    one, two = fill("one", {"FedAvg": 9, "FCF": 3}), fill("two", {"FedAvg": 0, "FedNCF": 1, "FCF": 3})
    lines = {(line[1], line[2], line[3]): line for line in compare_stores(one, two).lines}
    assert {key[1] for key in lines} == {"FedAvg", "FCF"} and len(lines) == 3 * 2 * 2
    better, equal = lines["a", "FedAvg", "ndcg@50"], lines["a", "FCF", "ndcg@50"]
    assert better[5] == 100.0 and better[5] > better[4] and float(better[7]) < 0.05
    assert equal[4] == equal[5] and equal[6] == "+0.00" and float(equal[7]) == 1.0
    with pytest.raises(ResultsError, match="no cell in common"):
        compare_stores(one, fill("other", {"PFedRec": 1}))
    with pytest.raises(ResultsError, match="no runs are stored in '.*nowhere'"):
        compare_stores(one, ResultsStore(tmp_path / "nowhere"))


def test_the_commands_print_and_refuse(fill, tmp_path: Path) -> None:
    one, two = fill("one", {"FedAvg": 9, "FCF": 3}), fill("two", {"FedAvg": 0, "FCF": 3})
    runner = CliRunner()
    shown = runner.invoke(app, ["compare", str(one.root), str(two.root)])
    assert shown.exit_code == 0 and "100.00" in shown.output
    ranked = runner.invoke(app, ["rank", "--results", str(one.root), "--profile", "smoke"])
    assert ranked.exit_code == 0 and "mean rank" in ranked.output
    empty = runner.invoke(app, ["rank", "--results", str(tmp_path / "nothing")])
    assert empty.exit_code == 2 and "error: ranks need" in empty.output
