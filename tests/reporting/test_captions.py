"""A table says which rows were still improving when their rounds ended."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.stored_runs import stored_table


@pytest.mark.parametrize(
    "best, said",
    [
        ({"FedAvg": (5, 5, 2), "FedAvg+ours": (5, 2, 2)}, "(the best round among the last twentieth in most seeds): KU: FedAvg."),
        ({"FedAvg": (5, 5, 5), "FedAvg+ours": (5, 5, 4)}, "in most seeds): KU: FedAvg, FedAvg+ours."),
        ({"FedAvg": (4, 4, 4), "FedAvg+ours": (1, 5, 3)}, None),
    ],
)  # fmt: skip
def test_rows_that_were_best_at_the_end_are_named(tmp_path: Path, tiny: PreparedData, fake, best, said) -> None:
    store, data = ResultsStore(tmp_path / "r"), PreparedData("ku", tiny.interactions, tiny.features)
    for spec in specs_for(PROFILES["smoke"], ["ku"], ["popularity", *best], 3):
        result = fake(spec, data=data)
        if spec.row in best:
            assert spec.training.rounds == 5
            result = dataclasses.replace(result, best_round=best[spec.row][spec.seed])
        store.append(result, data, "smoke")
    lines = [line for line in caption(stored_table(store, "smoke", "corrected")) if "very end" in line]
    assert len(lines) == (said is not None) and all(line.endswith(str(said)) for line in lines)
