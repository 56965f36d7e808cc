"""Statistics against numbers counted by hand, and Table 1 against the real sets."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, TokenFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.statistics import comparison_table, description, differences, statistics, table1

ROOT = Path(os.environ["FEDVLR_DATA"]) if "FEDVLR_DATA" in os.environ else None
needs_data = pytest.mark.skipif(ROOT is None, reason="FEDVLR_DATA names no data root with the real data sets")


def small() -> PreparedData:
    """Two users, four items: item z is never trained on and is the one validation item; w is nobody's."""
    users, items = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 0, 1])
    labels = np.array([0, 0, 1, 2, 0, 2])
    inter = Interactions.from_labels(users, items, labels, ("a", "b"), ("x", "y", "z", "w"))
    text = TokenFeatures("text", ("x", "z", "y"), np.eye(3)).align(inter.item_tokens)
    return PreparedData("small", inter, ItemFeatures([text]), {"duplicate_rows": 2})


def test_counts_by_hand():
    found = statistics(small())
    assert (found.users, found.items, found.interactions, found.duplicates) == (2, 4, 6, 2)
    assert found.density == 0.75 and found.sparsity == 25.0
    assert (found.cold_items, found.valid_positives, found.test_positives) == (2, 1, 2)
    assert (found.cold_valid, found.cold_test) == (1, 0)
    assert found.activity[0] == 2 and found.activity[-1] == 4 and found.popularity[-1] == 2
    assert found.top_share == pytest.approx(2 / 3)
    assert found.coverage == {"text": 0.75} and found.widths == {"text": 3}
    assert "1 of 1 (100.0 %)" in comparison_table([found])
    assert "75.0 % of the items have a row of their own" in description(found)


def test_differences_name_the_figure_and_both_values():
    equal = replace(statistics(small()), name="KU", users=204, items=560, interactions=3488, duplicates=0)
    assert differences(equal) == []
    lines = differences(replace(equal, users=203, interactions=3484, duplicates=5))
    assert lines[0] == "users: Table 1 has 204, here 203 (-1)"
    assert lines[1].startswith(
        "interactions: Table 1 has 3,488, here 3,484 distinct pairs in 3,489 rows, 5 of which repeat"
    )
    assert differences(replace(equal, name="nothing of the paper", users=1)) == []


def test_table_1_is_consistent_in_itself():
    rows = table1()
    assert list(rows) == ["beauty", "cards", "ml", "ku", "dance", "food", "movie"]
    for row in rows.values():
        assert 100 * (1 - row.interactions / row.users / row.items) == pytest.approx(row.sparsity, abs=0.006)


@needs_data
@pytest.mark.parametrize("name", ["ml", "beauty"])
def test_real_sets_equal_table_1(name):
    assert differences(statistics(prepare(name, ROOT))) == []


@needs_data
def test_ku_differs_by_its_duplicates_only():
    found = statistics(prepare("ku", ROOT))
    assert len(differences(found)) == 1 and "3,489 rows, 5 of which repeat" in differences(found)[0]
    assert (found.cold_test, found.cold_valid, found.cold_items) == (88, 46, 16)
