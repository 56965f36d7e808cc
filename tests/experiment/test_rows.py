"""Names of rows: one spelling each, and RecBole's models among them."""

from __future__ import annotations

import pytest

from fedvlr_plugin.errors import UnknownNameError
from fedvlr_plugin.experiment.rows import check_rows, recbole_models


def test_rows_are_canonical_and_recbole_models_are_rows() -> None:
    assert check_rows(["fedavg", "FEDAVG", "vbpr", "lightgcn", "Chance"]) == ["FedAvg", "VBPR", "LightGCN", "chance"]
    assert {"BPR", "LightGCN", "ItemKNN", "NeuMF"} <= set(recbole_models())
    with pytest.raises(UnknownNameError, match="Did you mean 'cold-first'"):
        check_rows(["coldfirst"])
