"""What was spent on searches is read from the selections; rows treated alike share a line."""

from __future__ import annotations

import pytest

from fedvlr_plugin.experiment.profiles import PROFILES, spec_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.readme import END, refresh
from fedvlr_plugin.reporting.stored_runs import budget_grid, stored_budget
from fedvlr_plugin.search.selection import SelectedConfiguration, save_tuned


def tuned(row: str, tried: int = 16, **settings: object) -> SelectedConfiguration:
    base = spec_for(PROFILES["paper"], "ku", row, 0, "corrected", settings)
    return SelectedConfiguration(
        schema_version=1, study=f"ku {row} {tried}", profile="paper", method="grid", base=base, data_fingerprint="x",
        point={"client_lr": 0.1}, settings={"client_lr": 0.1}, value=1.0, tried=tried, failed=1, pruned=0, seeds=5,
    )  # fmt: skip


def test_rows_treated_alike_share_a_line() -> None:
    grid = budget_grid([tuned("FCF"), tuned("VBPR"), tuned("FedAvg"), tuned("FedAvg+ours", 3, participation=0.2)])
    assert grid.lines == (
        ("KU", "VBPR", "grid", 17, 5, "200", "20", ""),
        ("KU", "FedAvg, FCF", "grid", 17, 5, "200", "–", "1"),
        ("KU", "FedAvg+ours", "grid", 4, 5, "200", "–", "0.2"),
    )


@pytest.mark.parametrize("sizes", [(3, 16), (16, 3)])
def test_only_the_search_that_the_table_shows_counts(tmp_path, sizes) -> None:
    for tried in sizes:
        save_tuned(ResultsStore(tmp_path), tuned("FedAvg", tried))
    assert [line[3] for line in stored_budget(ResultsStore(tmp_path), "paper", "corrected").lines] == [17]
    assert stored_budget(ResultsStore(tmp_path), "paper", "corrected", ["ml"]).lines == ()
    text = refresh(f"<!-- table2 profile=paper datasets=ku show=budget -->\n{END}", ResultsStore(tmp_path))
    assert "| KU " in text and "| FedAvg |" in text.replace("  ", " ")
