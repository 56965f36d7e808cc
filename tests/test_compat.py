"""The scipy shim: RecBole's graph models fill a dok_matrix in the old way on any scipy."""

import numpy as np
from scipy.sparse import dok_matrix

from fedvlr_plugin import compat


def test_entries_are_taken_over_where_scipy_lost_its_update(monkeypatch):
    for base in dok_matrix.__mro__:
        if "_update" in vars(base):
            monkeypatch.delattr(base, "_update")
    compat.prepare_recbole()
    try:
        matrix = dok_matrix((2, 3), dtype=np.float32)
        matrix._update({(0, 1): 2.0, (1, 2): 3.0})
        assert matrix.toarray().tolist() == [[0, 2, 0], [0, 0, 3]]
    finally:
        del dok_matrix._update


def test_a_scipy_that_has_it_is_left_alone(monkeypatch):
    def theirs(matrix, entries):
        raise AssertionError

    monkeypatch.setattr(dok_matrix, "_update", theirs, raising=False)
    compat.prepare_recbole()
    assert dok_matrix._update is theirs
