"""Claims are judged by the test's direction and p, and the best rows are chosen by validation."""

from __future__ import annotations

import dataclasses

import pytest

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import UnknownNameError
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.claims import Finding, claims_grid, findings
from fedvlr_plugin.reporting.comparisons import Comparison
from fedvlr_plugin.reporting.readme import END, refresh
from fedvlr_plugin.reporting.results_table import build_table

ROWS = ["cold-first", "VBPR", "BM3", "FedAvg", "FedAvg+MLP", "FedAvg+ours", "FCF", "FCF+ours"]


@pytest.fixture
def stored(tmp_path, tiny, fake):
    """Test ranks that leave no doubt: FedAvg+ours first, FCF+ours last; by validation VBPR and FCF+ours are best."""
    store = ResultsStore(tmp_path)
    specs = specs_for(PROFILES["smoke"], ["tiny"], ROWS, 5)
    test_rank = {"FedAvg+ours": 0, "FCF+ours": 60, "FCF": 10, "VBPR": 5, "BM3": 1}
    for spec in specs:
        result = fake(spec, data=tiny)
        held = 0 * result.test.above
        above = test_rank.get(spec.row, 30)
        valid = 0 if spec.row in ("VBPR", "FCF+ours") else 40
        result = dataclasses.replace(
            result,
            best_round=min(1, result.best_round),
            test=dataclasses.replace(result.test, above=held + above, tied=held),
            valid=dataclasses.replace(result.valid, above=0 * result.valid.above + valid, tied=0 * result.valid.tied),
        )
        store.append(result, tiny, "smoke")
    return store, build_table(store, specs)


def test_every_pair_is_judged_in_its_direction(stored) -> None:
    store, table = stored
    words = {(f.claim, f.better, f.worse): f.word for f in findings(store, table) if f.metric == "ndcg@50"}
    assert words == {
        ("+ours beats the vanilla row", "FedAvg+ours", "FedAvg"): "holds",
        ("+ours beats +MLP", "FedAvg+ours", "FedAvg+MLP"): "holds",
        ("+ours beats the vanilla row", "FCF+ours", "FCF"): "does not hold",
        ("the best +ours row beats the best centralized row", "FCF+ours", "VBPR"): "does not hold",
        ("the best federated row beats cold-first", "FCF+ours", "cold-first"): "does not hold",
    }


def test_what_the_tests_cannot_tell_is_undecided() -> None:
    finding = Finding("c", "ku", "hr@50", "FCF+ours", "FCF", Comparison(3.0, 0.01, 0.06, True), True)

    def with_tests(found: Finding, **changes) -> Finding:
        return dataclasses.replace(found, comparison=dataclasses.replace(found.comparison, **changes))

    assert finding.word == "undecided" and with_tests(finding, adjusted_p=0.04).word == "holds"
    assert with_tests(finding, adjusted_p=0.04, users_p=0.06).word == "undecided", "both tests must say so"
    assert with_tests(finding, adjusted_p=0.04, difference=-3.0).word == "does not hold"
    assert with_tests(finding, adjusted_p=0.001, enough=False).word == "not enough runs"
    against = with_tests(finding, adjusted_p=0.01, difference=-1.0)
    against = dataclasses.replace(against, better="FedAvg+ours", worse="VBPR", paper=False)
    few = dataclasses.replace(with_tests(finding, enough=False), better="FedRAP+ours", worse="FedRAP", paper=None)
    grid = claims_grid([finding, against, few])
    line = ("c", "KU", "HR@50", "1 of 2", "", "FedAvg+ours over VBPR -1.00", "FCF +3.00", "FedRAP +3.00")
    assert grid.lines == (line,)


@pytest.mark.parametrize(("seeds", "best_round"), [(4, 1), (5, 5)])
def test_few_seeds_and_unfinished_rows_give_no_verdict(tmp_path, tiny, fake, seeds, best_round) -> None:
    """However clear the difference is; a floor has neither."""
    store = ResultsStore(tmp_path)
    specs = specs_for(PROFILES["smoke"], ["tiny"], ["cold-first", "FedAvg", "FedAvg+ours"], seeds)
    for spec in specs:
        result = fake(spec, data=tiny)
        above = result.test.above // 50 + (0 if spec.row == "FedAvg+ours" else 60)
        test = dataclasses.replace(result.test, above=above)
        store.append(dataclasses.replace(result, test=test, best_round=min(best_round, result.best_round)), tiny)
    found = findings(store, build_table(store, specs))
    assert {f.claim for f in found} == {"+ours beats the vanilla row", "the best federated row beats cold-first"}
    assert {f.word for f in found} == {"not enough runs"}
    assert all(f.comparison.users_p < 0.001 for f in found if f.worse == "FedAvg"), "the models differ, all the same"


def test_closed_forms_need_one_run_and_are_never_unfinished(tmp_path, tiny, fake) -> None:
    """FedEASE has one run, since it has no seed, and its best round is always its last."""
    store = ResultsStore(tmp_path)
    specs = specs_for(PROFILES["smoke"], ["tiny"], ["cold-first", "FedEASE"], 5)
    assert len(specs) == 2
    for spec in specs:
        result = fake(spec, data=tiny)
        above = result.test.above // 50 + (0 if spec.row == "FedEASE" else 60)
        test = dataclasses.replace(result.test, above=above)
        store.append(dataclasses.replace(result, test=test, best_round=max(1, spec.training.rounds)), tiny)
    table = build_table(store, specs)
    found = findings(store, table)
    assert {f.claim for f in found} == {"the best federated row beats cold-first"}
    assert {f.word for f in found} == {"holds"}
    assert not any("not finished" in line for line in caption(table))


def test_verdicts_do_not_depend_on_the_data_sets_beside(tmp_path, tiny, fake) -> None:
    """Each data set is a family of its own, the claims between kinds of rows included."""
    store = ResultsStore(tmp_path)
    data = {name: PreparedData(name, tiny.interactions, tiny.features) for name in ("one", "two", "three")}
    rows = ["cold-first", "VBPR", "FedAvg", "FedAvg+MLP", "FedAvg+ours"]
    specs = specs_for(PROFILES["smoke"], list(data), rows, 2)
    for spec in specs:
        store.append(fake(spec, data=data[spec.dataset]), data[spec.dataset])
    together = findings(store, build_table(store, specs))
    for name in data:
        alone = findings(store, build_table(store, [spec for spec in specs if spec.dataset == name]))
        assert alone == [f for f in together if f.dataset == name] and len(alone) == 8


def test_the_papers_direction_comes_from_its_table(stored) -> None:
    store, table = stored
    assert {f.paper for f in findings(store, table)} == {None}, "the paper has no data set of that name"
    ku = dataclasses.replace(
        table,
        datasets=("ku",),
        cells={(row, "ku"): dataclasses.replace(cell, dataset="ku") for (row, _), cell in table.cells.items()},
        pairs=tuple(dataclasses.replace(pair, dataset="ku") for pair in table.pairs),
    )
    paper = {(f.better, f.worse, f.metric): f.paper for f in findings(store, ku)}
    assert paper["FedAvg+ours", "FedAvg", "hr@50"] is True  # 54.90 over 11.27
    assert paper["FCF+ours", "VBPR", "ndcg@50"] is True  # 15.97 over 15.47
    assert paper["FCF+ours", "cold-first", "hr@50"] is None


def test_the_readme_can_show_claims(stored) -> None:
    store, _ = stored
    text = refresh(f"<!-- table2 profile=smoke datasets=tiny show=claims -->\n{END}", store)
    assert "| +ours beats the vanilla row  " in text and "| tiny " in text and "does not hold" in text
    with pytest.raises(UnknownNameError, match="Did you mean 'claims'"):
        refresh(f"<!-- table2 profile=smoke datasets=tiny show=claim -->\n{END}", store)


def test_made_up_data_say_nothing(stored) -> None:
    store, table = stored
    planted = dataclasses.replace(table, pairs=tuple(dataclasses.replace(p, dataset="planted") for p in table.pairs))
    assert {f.claim for f in findings(store, planted)} == {
        "the best +ours row beats the best centralized row",
        "the best federated row beats cold-first",
    }
