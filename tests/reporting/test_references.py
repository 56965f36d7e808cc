"""Floors and yardsticks in every table, rows in closed form, the shuffled control from the option to the claim."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedvlr_plugin.centralized.closed_form import LAMBDAS
from fedvlr_plugin.cli.arguments import parse_options
from fedvlr_plugin.cli.request import Sources, prepare
from fedvlr_plugin.cli.tables import runs_output
from fedvlr_plugin.config import PROTOCOLS, Conditions, ExecutionConfig, Privacy, RunSpec, TrainingConfig
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError, DataError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment.controls import (
    control_label,
    controls_of,
    is_control,
    label_of,
    permutation,
    row_of,
    shuffle_features,
)
from fedvlr_plugin.experiment.profiles import PROFILES, spec_for, specs_for
from fedvlr_plugin.experiment.rows import CLOSED_FORMS, REFERENCES, check_rows, known_rows, parse_row
from fedvlr_plugin.experiment.run import check_spec, run
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.claims import BY_CONTENT, findings
from fedvlr_plugin.reporting.cost_accuracy import cost_points
from fedvlr_plugin.reporting.results_table import build_table, kind_of
from fedvlr_plugin.reporting.table2.formats import group_ends, markdown
from fedvlr_plugin.search.space import space_of


def spec(row: str, **more: object) -> RunSpec:
    wanted = spec_for(PROFILES["smoke"], "tiny", row, 0)
    return wanted.model_copy(update=more)


def test_names() -> None:
    assert parse_row("ease & New-Item Prior").name == "EASE & new-item prior"
    assert parse_row("FedAvg+OURS & new-item prior").fusion == "blfm"
    assert parse_row("fedease+CONTENT").kind == "one_shot"
    assert parse_row("itemknn").kind == "closed_form"
    assert parse_row("FedEASE & new-item prior").base == "FedEASE"
    assert check_rows(known_rows()) == known_rows()
    for bad in ("popularity & new-item prior", "VBPR & new-item prior", "EASE & luck", "EASE & EASE"):
        with pytest.raises(ConfigError):
            parse_row(bad)
    with pytest.raises(ConfigError, match="chooses its own numbers"):
        space_of("FedEASE")


def test_kinds_in_a_table() -> None:
    assert {kind_of(row) for row in (*REFERENCES, "FedAvg & new-item prior")} == {"floor"}
    assert kind_of("FedEASE+content") == "federated"
    assert kind_of(control_label("FedAvg+ours")) == "control"
    rows = ["chance", "EASE", "VBPR", control_label("VBPR"), "FedAvg+ours", control_label("FedAvg+ours"), "FCF"]
    assert group_ends(rows) == {1, 3, 5}


def test_closed_forms_have_one_run_whatever_the_profile() -> None:
    for row in CLOSED_FORMS:
        found = {spec_for(profile, "tiny", row, 7).spec_hash for profile in PROFILES.values()}
        assert len(found) == 1
        assert len(specs_for(PROFILES["paper"], ["tiny"], [row], 5)) == 1


@pytest.mark.parametrize("row", [*CLOSED_FORMS, "FedAvg & new-item prior"])
def test_every_row_runs(tiny: PreparedData, row: str) -> None:
    result = run(spec(row), data=tiny)
    assert len(result.valid) == len(result.test) == 30
    assert result.data_fingerprint == tiny.fingerprint
    again = run(spec(row), data=tiny)
    np.testing.assert_array_equal(again.test.above, result.test.above)
    if row in ("EASE", "FedEASE"):
        assert result.chosen["lam"] in LAMBDAS and result.chosen["points"] == len(LAMBDAS)
    if row.endswith("prior"):
        assert "bonus" in result.chosen


@pytest.mark.parametrize(
    "row", ["ItemKNN", "EASE", "EASE & new-item prior", "FedEASE+content", "FedAvg & new-item prior"]
)
def test_nothing_is_chosen_by_test(tiny: PreparedData, row: str) -> None:
    """With other test items the choice and the validation ranks are the same."""
    x = tiny.interactions
    other = dataclasses.replace(x, test=(x.test + 17) % x.n_items)
    moved = PreparedData("tiny", other, tiny.features)
    one, two = run(spec(row), data=tiny), run(spec(row), data=moved)
    assert dict(one.chosen) == dict(two.chosen)
    np.testing.assert_array_equal(one.valid.above, two.valid.above)
    assert (one.test.above != two.test.above).any()


def test_the_choice_is_the_best_on_validation(tiny: PreparedData) -> None:
    def at(lam: float) -> float:
        wanted = spec("EASE")
        fixed = wanted.model_copy(update={"model": wanted.model.model_copy(update={"params": {"lam": lam}})})
        return summary(run(fixed, data=tiny).valid)["ndcg@50"]

    chosen = run(spec("EASE"), data=tiny)
    assert summary(chosen.valid)["ndcg@50"] == max(map(at, LAMBDAS)) == at(chosen.chosen["lam"])


def test_fedease_without_a_minimum_is_ease(tiny: PreparedData) -> None:
    wanted = spec("FedEASE")
    every = wanted.model_copy(update={"model": wanted.model.model_copy(update={"params": {"minimum_count": 1}})})
    one, two = run(spec("EASE"), data=tiny), run(every, data=tiny)
    np.testing.assert_array_equal(one.test.above, two.test.above)
    np.testing.assert_array_equal(one.test.tied, two.test.tied)


def test_fedease_takes_privacy_and_secure_sums(tiny: PreparedData, tmp_path) -> None:
    noisy = spec("FedEASE", conditions=Conditions(privacy=Privacy(epsilon=8.0, clip=1.0)))
    result = run(noisy, data=tiny)
    record = ResultsStore(tmp_path).append(result, tiny, "smoke")
    assert record.privacy is not None and record.privacy.rounds == 1
    assert record.curve[0].accounts["epsilon"] == record.privacy.epsilon
    with pytest.raises(ConfigError, match="takes no conditions"):
        run(spec("EASE", conditions=noisy.conditions), data=tiny)
    with pytest.raises(ConfigError, match="one round of all clients"):
        check_spec(spec("FedEASE", training=TrainingConfig(rounds=5)), ExecutionConfig(), 120)
    with pytest.raises(ConfigError, match="memory budget"):
        check_spec(spec("FedEASE"), ExecutionConfig(memory_budget=1000), 120)


def test_a_permutation_per_seed() -> None:
    first = permutation(0, 500)
    assert sorted(first) == list(range(500))
    np.testing.assert_array_equal(first, permutation(0, 500))
    assert (first != permutation(1, 500)).mean() > 0.9
    assert (first == np.arange(500)).mean() < 0.02


def test_shuffling_moves_rows_of_all_modalities_together(tiny: PreparedData) -> None:
    text = tiny.features["text"]
    both = PreparedData("tiny", tiny.interactions, ItemFeatures([text, dataclasses.replace(text, name="image")]))
    shuffled = shuffle_features(both, 3)
    order = permutation(3, 120)
    for name in ("text", "image"):
        np.testing.assert_array_equal(shuffled.features[name].matrix, text.matrix[order])
    assert shuffled.interactions is both.interactions


def test_hashes_of_runs_without_a_control_are_what_they_were() -> None:
    plain = RunSpec(dataset="ku", row="FedAvg+ours", seed=3, protocol=PROTOCOLS["corrected"])
    assert plain.spec_hash == HASH_BEFORE
    assert plain.model_copy(update={"control": "shuffled"}).spec_hash != HASH_BEFORE


HASH_BEFORE = "0c2061726e7e6e19"


def test_who_has_a_control() -> None:
    runs = [spec(row) for row in known_rows()]
    controls = controls_of(runs)
    assert {c.row for c in controls} == {
        "content", "content+popularity", "VBPR", "BM3", "MGCN", "PGL", "FedEASE+content", "FedAvg+VBPR",
        *(f"{name}+{how}" for name in ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP") for how in ("MLP", "ours")),
    }  # fmt: skip
    assert controls_of(controls) == []
    assert all(is_control(label_of(c)) and row_of(label_of(c)) == c.row for c in controls)


def test_a_control_sees_other_features_and_names_the_data_it_was_given(tiny: PreparedData) -> None:
    plain, control = (run(s, data=tiny) for s in (spec("content"), spec("content", control="shuffled")))
    assert control.data_fingerprint == plain.data_fingerprint
    assert (control.test.above != plain.test.above).any()
    with pytest.raises(ConfigError, match="uses no item features"):
        run(spec("FedAvg", control="shuffled"), data=tiny)
    with pytest.raises(DataError, match="no item features to shuffle"):
        run(spec("content", control="shuffled"), data=PreparedData("tiny", tiny.interactions))


def test_a_table_shows_controls_as_lines_and_says_who_gains_by_content(tmp_path, tiny: PreparedData) -> None:
    store = ResultsStore(tmp_path)
    # validation and test items are their users' history repeated in features: content finds them, shuffled it cannot
    x = tiny.interactions
    features = np.zeros((x.n_items, x.n_users), dtype=np.float32)
    for user in range(x.n_users):
        features[[*x.history(user), x.valid[user], x.test[user]], user] = 1.0
    told = PreparedData("tiny", x, ItemFeatures([dataclasses.replace(tiny.features["text"], matrix=features)]))
    runs = [spec("popularity"), spec("content"), spec("FedEASE"), spec("content", control="shuffled")]
    for each in runs:
        store.append(run(each, data=told), told, "smoke")
    table = build_table(store, runs, profile="smoke")
    assert table.rows == ("popularity", "content", "content [shuffled]", "FedEASE")
    one, two = (table.figure(row, "tiny", "ndcg@50") for row in ("content", "content [shuffled]"))
    assert one is not None and two is not None and one.mean > two.mean
    assert [(p.row, p.against) for p in table.control_pairs] == [("content", "content [shuffled]")] * len(METRICS)
    words = {f.metric: f.word for f in findings(store, table) if f.claim == BY_CONTENT}
    assert words == dict.fromkeys(METRICS, "holds")
    lines = caption(table)
    assert any("gains by content: tiny content (HR@50" in line for line in lines)
    assert any("tiny FedEASE lam" in line for line in lines)
    assert "content [shuffled]" in markdown(table)
    assert table.best("tiny", "ndcg@50") == "FedEASE"
    (point,) = cost_points(table)
    assert point.row == "FedEASE" and point.uploads == 1.0 and point.upload > 0


@pytest.mark.references
def test_references_are_there_whatever_is_asked_for(tmp_path, tiny: PreparedData) -> None:
    said: list[str] = []

    def ask(data: PreparedData, *more: str, product: str = "table2"):
        options = parse_options(
            ["--profile", "smoke", "--results", str(tmp_path), "--datasets", "tiny", *more],
            with_noise=product == "table4",
        )
        return prepare(options, Sources(lambda root: [], lambda name, root: name, lambda name, root: data),
                       runs_output(product),
                       said.append)  # fmt: skip

    found = ask(tiny, "--rows", "FCF")
    assert found.rows == (*REFERENCES, "FCF")
    assert {s.row for s in found.specs} == {*REFERENCES, "FCF"}
    searched = ask(tiny, "--rows", "FCF", "--search", "grid", product="table4")
    assert {s.row for s in searched.specs} == set(REFERENCES)
    assert [cell.study.base.row for cell in searched.cells] == ["FCF"]
    bare = ask(PreparedData("tiny", tiny.interactions), "--rows", "FCF", "FedEASE+content")
    assert {s.row for s in bare.specs} == {*REFERENCES, "FCF"} - {"content", "content+popularity"}
    assert said[-1] == "  tiny has no item features: without content, content+popularity, FedEASE+content"
    with pytest.raises(ConfigError, match="--control shuffled is for Table 2"):
        ask(tiny, "--control", "shuffled", product="figure3")
