"""Sentences about evidence come from the store: searches, seeds and rounds behind each verdict, and what is missing."""

from __future__ import annotations

import dataclasses

import pytest

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.claims import findings
from fedvlr_plugin.reporting.evidence import evidence
from fedvlr_plugin.reporting.readme import END, refresh
from fedvlr_plugin.reporting.stored_runs import stored_table
from fedvlr_plugin.search.selection import SelectedConfiguration, save_tuned


@pytest.fixture
def store(tmp_path, tiny, fake) -> ResultsStore:
    """On KU FedAvg+ours (a grid of 30 + 2 trials) is far ahead of FedAvg (tpe of 4); FCF has two seeds of five."""
    store, data = ResultsStore(tmp_path / "r"), PreparedData("ku", tiny.interactions, tiny.features)
    searches = {"FedAvg": ("tpe", 4, 0, 5), "FedAvg+ours": ("grid", 30, 2, 5), "FCF": ("tpe", 3, 0, 2),
                "FCF+ours": ("tpe", 3, 0, 5)}  # fmt: skip
    for row, (method, tried, pruned, seeds) in searches.items():
        (base,) = specs_for(PROFILES["smoke"], ["ku"], [row], 1)
        tuned = SelectedConfiguration(schema_version=1, study=f"ku {row}", profile="paper", method=method, base=base,
                      data_fingerprint=data.fingerprint, point={}, settings={}, value=1.0, tried=tried, failed=0,
                      pruned=pruned, seeds=seeds)  # fmt: skip
        save_tuned(store, tuned)
        for spec in tuned.specs():
            result = dataclasses.replace(fake(spec, data=data), best_round=1)
            ranks = dataclasses.replace(result.test, above=result.test.above * 0 + (0 if row == "FedAvg+ours" else 90))
            store.append(dataclasses.replace(result, test=ranks), data, "paper")
    return store


def test_a_verdict_names_the_searches_it_rests_on(store: ResultsStore) -> None:
    table = stored_table(store, "paper", "corrected")
    sentences = evidence(store, table, findings(store, table))
    assert sentences == [
        "+ours beats the vanilla row: holds in 2, does not hold in 0, undecided in 0, not enough runs in 2 of 4 comparisons "
        "(rows, data sets, metrics)",
        "KU, FedAvg+ours over FedAvg: holds: HR@50 +100.00, NDCG@50 +100.00 (FedAvg+ours: grid search of 32 trials, 5 seeds "
        "of at most 5 rounds; FedAvg: tpe search of 4 trials, 5 seeds of at most 5 rounds)",
        "KU, not enough runs: FCF (2 of 5 seeds)",
    ]


def test_another_search_says_something_else(store: ResultsStore) -> None:
    """The same runs, but the store says that they come from eight trials."""
    (path,) = store.studies.glob("*FedAvg+ours*")
    tuned = SelectedConfiguration.model_validate_json(path.read_text())
    save_tuned(store, tuned.model_copy(update={"method": "tpe", "tried": 8, "pruned": 0}))
    table = stored_table(store, "paper", "corrected")
    assert any("FedAvg+ours: tpe search of 8 trials" in line for line in evidence(store, table, findings(store, table)))


def test_the_readme_can_show_it(store: ResultsStore) -> None:
    text = refresh(f"<!-- table2 profile=paper datasets=ku show=evidence -->\n{END}", store)
    assert "* KU, FedAvg+ours over FedAvg: holds: HR@50 +100.00" in text and "* KU, not enough runs: FCF" in text
