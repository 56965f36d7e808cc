"""Statistics in the table: per-user means over seeds, marks for real differences, verdicts on the paper's figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.metrics import ndcg
from fedvlr_plugin.evaluation.significance import Interval
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.record import DataPart
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.comparisons import compare_family, compare_rows, method_interval, per_user
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.table2_formats import marks, verdicts
from fedvlr_plugin.reporting.verdict import RELEASED_FEATURES, judge

KU = DataPart(
    name="ku", fingerprint=next(iter(RELEASED_FEATURES)), interactions_fingerprint="", users=204, items=560,
    interactions=3484, modalities={"text": 512, "vision": 512},
)  # fmt: skip


@pytest.fixture
def stored(tmp_path, tiny, fake):
    """Five finished seeds of FedAvg, FedAvg+MLP and FedAvg+ours; the last is much better than the others for every user."""
    store = ResultsStore(tmp_path)
    specs = specs_for(PROFILES["smoke"], ["tiny"], ["FedAvg", "FedAvg+MLP", "FedAvg+ours"], 5)
    for spec in specs:
        result = dataclasses.replace(fake(spec, data=tiny), best_round=1)
        if spec.row == "FedAvg+ours":
            result = dataclasses.replace(result, test=dataclasses.replace(result.test, above=result.test.above // 30))
        else:
            result = dataclasses.replace(
                result, test=dataclasses.replace(result.test, above=20 + (result.test.above + spec.seed) % 60)
            )
        store.append(result, tiny)
    return store, specs


def test_a_users_value_is_the_mean_over_seeds(stored) -> None:
    store, _ = stored
    records = [r for r in store.records() if r.row == "FedAvg"]
    expected = 100 * np.mean([ndcg(store.ranks(r, "test")) for r in records], axis=0)
    np.testing.assert_allclose(per_user(store, records).values["ndcg@50"], expected)


def test_pairs_are_within_the_backbone_and_the_real_difference_is_found(stored) -> None:
    store, specs = stored
    table = build_table(store, specs)
    found = {(p.row, p.against, p.metric): p for p in table.pairs}
    assert set(found) == {
        (row, against, metric)
        for row, against in (("FedAvg+MLP", "FedAvg"), ("FedAvg+ours", "FedAvg"), ("FedAvg+ours", "FedAvg+MLP"))
        for metric in ("hr@50", "ndcg@50")
    }
    assert found["FedAvg+ours", "FedAvg", "ndcg@50"].better is True
    assert found["FedAvg+ours", "FedAvg+MLP", "ndcg@50"].better is True
    assert found["FedAvg+MLP", "FedAvg", "ndcg@50"].better is None
    assert marks(table, "FedAvg+ours", "tiny", "ndcg@50") == " ▲†" and marks(table, "FedAvg", "tiny", "ndcg@50") == ""
    assert any("6 comparisons" in line for line in caption(table))


def test_without_enough_runs_marks_stand_in_brackets(stored) -> None:
    """Four of the five seeds: the same models differ over users, and that is all that is said."""
    store, specs = stored
    table = build_table(store, [spec for spec in specs if spec.seed < 4])
    pairs = {(p.row, p.against, p.metric): p for p in table.pairs}
    assert pairs["FedAvg+ours", "FedAvg", "ndcg@50"].better is None
    assert pairs["FedAvg+ours", "FedAvg", "ndcg@50"].models_better is True
    assert marks(table, "FedAvg+ours", "tiny", "ndcg@50") == " (▲)(†)"
    assert marks(table, "FedAvg+MLP", "tiny", "ndcg@50") == ""


def test_one_seed_has_no_test_of_the_method(stored) -> None:
    store, specs = stored
    cell = per_user(store, [store.records({specs[0].spec_hash})[0]])
    assert cell.shortage == "1 of 5 seeds" and method_interval(cell, "ndcg@50") is None
    floor = dataclasses.replace(cell, varies=False, shortage="")
    assert method_interval(floor, "ndcg@50") is not None
    other = dataclasses.replace(floor, values={m: v - 50.0 for m, v in floor.values.items()},
                                seeds={m: v - 50.0 for m, v in floor.seeds.items()})  # fmt: skip
    few, enough = (compare_family([("ndcg@50", "a", c, "b", other)], "tiny")[0] for c in (cell, floor))
    assert few.adjusted_p == 1.0 and few.users_p < 1e-6 and enough.adjusted_p < 1e-6


def test_a_verdict_on_the_papers_figure_asks_for_enough_runs() -> None:
    found = judge("FedAvg", "ku", "hr@50", 39.0, Interval(32.0, 46.0), KU, "3 of 5 seeds, unfinished")
    assert str(found) == "not enough runs: 3 of 5 seeds, unfinished"
    data = KU.model_copy(update={"users": 203})
    other = judge("FedAvg", "ku", "ndcg@50", 5.0, Interval(4.0, 6.0), data, "3 of 5 seeds")
    assert other is not None and other.word == "not comparable", "more runs would not help"


def test_a_worse_row_is_marked_as_worse(stored) -> None:
    store, specs = stored
    cells = {}
    for name in ("FedAvg", "FedAvg+MLP", "FedAvg+ours"):
        row = {"FedAvg+ours": "FedAvg", "FedAvg": "FedAvg+ours"}.get(name, name)
        cells[row, "tiny"] = per_user(store, [record for record in store.records() if record.row == name])
    worse = [p for p in compare_rows(cells) if (p.row, p.against, p.metric) == ("FedAvg+ours", "FedAvg", "ndcg@50")]
    assert worse[0].better is False


def test_the_table_is_the_same_each_time_it_is_made(stored) -> None:
    store, specs = stored
    one, two = build_table(store, specs), build_table(store, specs)
    assert one.cells == two.cells and one.pairs == two.pairs
    figure = one.figure("FedAvg", "tiny", "ndcg@50")
    assert figure.interval.low < figure.mean < figure.interval.high


def test_runs_on_different_users_are_not_averaged(stored, tiny) -> None:
    store, _ = stored
    one, two = [r for r in store.records() if r.row == "FedAvg"][:2]
    less = store.ranks(two, "test")
    fewer = dataclasses.replace(less, **{f.name: getattr(less, f.name)[1:] for f in dataclasses.fields(less)})
    originals = {one.key: store.ranks(one, "test"), two.key: fewer}
    store.ranks = lambda record, phase: originals[record.key]
    with pytest.raises(ResultsError, match="different users"):
        per_user(store, [one, two])


@pytest.mark.parametrize(
    ("row", "dataset", "metric", "mean", "bounds", "data", "expected"),
    [
        ("FedAvg+ours", "ku", "hr@50", 52.0, (48.0, 58.0), KU, "reproduced"),
        ("FedAvg", "ku", "hr@50", 39.0, (32.0, 46.0), KU, "higher"),
        ("FedAvg+ours", "ku", "hr@50", 40.0, (34.0, 46.0), KU, "lower"),
        ("FedAvg+ours", "ku", "hr@50", None, None, None, "not run"),
        ("FedAvg", "ml-100k", "hr@50", 39.0, (32.0, 46.0), KU, None),
        ("FedAvg+VBPR", "dance", "hr@50", None, None, None, "not comparable: the paper's run failed"),
        ("FedRAP+ours", "ku", "hr@50", 40.0, (34.0, 46.0), KU, "not comparable: 48.24 % is no whole number of 204 users"),  # noqa: E501
        ("FedRAP+ours", "ku", "ndcg@50", 13.0, (12.0, 14.0), KU, "reproduced"),
        (
            "FedAvg", "ku", "ndcg@50", 5.0, (4.0, 6.0), KU.model_copy(update={"users": 203}),
            "not comparable: 203 users and 560 items, the paper's data have 204 and 560",
        ),
        (
            "VBPR", "ku", "hr@50", 44.0, (40.0, 48.0), KU.model_copy(update={"modalities": {"text": 384}, "fingerprint": ""}),
            "not comparable: item features other than CLIP's image and text (text)",
        ),
        ("FedAvg", "ku", "hr@50", 11.0, (9.0, 13.0), KU.model_copy(update={"modalities": {}}), "reproduced"),
    ],
)  # fmt: skip
def test_verdicts(row, dataset, metric, mean, bounds, data, expected) -> None:
    interval = None if bounds is None else Interval(*bounds)
    found = judge(row, dataset, metric, mean, interval, data)
    assert (None if found is None else str(found)) == expected


def test_every_figure_of_the_paper_gets_a_word_in_the_table(tmp_path) -> None:
    specs = specs_for(PROFILES["smoke"], ["ku", "tiny"], ["chance", "FedAvg", "FedRAP+ours"], 1)
    (block,) = verdicts(build_table(ResultsStore(tmp_path), specs))
    assert [[t.text for t in line] for line in block.lines] == [["", ""], ["not run"] * 2, ["not run"] * 2]
