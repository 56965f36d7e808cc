"""Split and filter against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_plugin.data.interactions import Interactions, leave_one_out
from fedvlr_plugin.errors import DataError


def test_leave_one_out_by_hand():
    """Ties in time keep the order of rows; one row trains, two give train and test."""
    users = np.array([0, 1, 0, 0, 2, 1, 0, 2, 2])
    times = np.array([5.0, 1, 7, 7, 3, 2, 1, 3, 3])
    assert leave_one_out(users, times).tolist() == [0, 0, 1, 2, 0, 2, 0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_leave_one_out_equals_the_slow_way(rows):
    users, times = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    expected = [0] * len(rows)
    for user in set(users.tolist()):
        mine = sorted((i for i in range(len(rows)) if users[i] == user), key=lambda i: times[i])
        if len(mine) >= 2:
            expected[mine[-1]] = 2
        if len(mine) >= 3:
            expected[mine[-2]] = 1
    assert leave_one_out(users, times).tolist() == expected


def test_duplicates_count_once_and_histories_ascend():
    data = Interactions.from_labels(
        np.array([0, 0, 0, 0, 1]), np.array([2, 1, 2, 0, 1]), np.array([0, 0, 0, 2, 0]), ("a", "b"), ("x", "y", "z")
    )
    assert data.history(0).tolist() == [1, 2] and data.history(1).tolist() == [1]
    assert data.test.tolist() == [0, -1] and data.valid.tolist() == [-1, -1]
    assert data.train_counts.tolist() == [0, 2, 1] and data.cold_items.tolist() == [True, False, False]
    assert data.n_interactions == 4


def test_two_test_items_are_refused_by_user():
    with pytest.raises(DataError, match="user 'b' has 2 test items"):
        Interactions.from_labels(np.array([1, 1]), np.array([0, 1]), np.array([2, 2]), ("a", "b"), ("x", "y"))


def test_the_fingerprint_sees_every_part():
    base = (np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 2, 0]))
    first = Interactions.from_labels(*base, ("a", "b"), ("x", "y"))
    assert first.fingerprint == Interactions.from_labels(*base, ("a", "b"), ("x", "y")).fingerprint
    assert first.fingerprint != Interactions.from_labels(*base, ("a", "c"), ("x", "y")).fingerprint
    assert (
        first.fingerprint
        != Interactions.from_labels(*base[:2], np.array([0, 1, 0]), ("a", "b"), ("x", "y")).fingerprint
    )
