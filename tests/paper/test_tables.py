"""The paper's figures as data: counts, spot checks and the failed runs."""

from __future__ import annotations

from fedvlr_plugin.experiment.rows import CENTRALIZED, federated_rows
from fedvlr_plugin.paper.tables import DATASETS, display_name, paper_failed, paper_value, published, table2


def test_every_cell_is_a_row_of_ours_on_a_data_set_of_the_paper() -> None:
    assert len(table2()) == 20 * 7
    assert {row for row, _ in table2()} == {*CENTRALIZED, *federated_rows()}
    assert {dataset for _, dataset in table2()} == set(DATASETS)


def test_spot_checks() -> None:
    assert paper_value("FedAvg+ours", "ku", "hr@50") == 54.90
    assert paper_value("FedRAP", "ml", "ndcg@50") == 3.76
    assert paper_value("VBPR", "ku", "hr@50") == 44.12
    assert paper_value("FedAvg", "ml-100k", "hr@50") is None and not paper_failed("FedAvg", "ml-100k")
    assert display_name("ku") == "KU" and display_name("ml-100k") == "ml-100k"


def test_failed_runs_are_the_two_of_vbpr() -> None:
    assert [cell for cell in table2() if paper_failed(*cell)] == [("FedAvg+VBPR", "dance"), ("FedAvg+VBPR", "movie")]
    assert paper_value("FedAvg+VBPR", "dance", "hr@50") is None


def test_the_other_tables_are_there() -> None:
    assert [len(published(n)) for n in (1, 2, 3, 4)] == [7, 140, 112, 10]
