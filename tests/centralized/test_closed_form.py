"""EASE and ItemKNN in float64 against dense, obvious versions; the matrix in place; float32 and blocks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from helpers.toy import make_toy

from fedvlr_plugin.centralized import closed_form
from fedvlr_plugin.centralized.closed_form import (
    GramMatrix,
    check_memory,
    count_pairs,
    ease_scores,
    find_neighbours,
    matrix_bytes,
)
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.evaluation.content import content_directions, history_matrix

DATA = make_toy()
X = history_matrix(DATA.interactions).toarray()
EVERYONE = np.arange(len(X))
ROUNDED = 0.51 * 10.0**-closed_form.DECIMALS  # half a step of the scores' rounding


@pytest.fixture(params=[3, 7, 512])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks that cut the 23 items in different places, and one that does not."""
    size: int = request.param
    monkeypatch.setattr(closed_form.blocks, "__defaults__", (size,))
    return size


def obvious_ease(lam: float, side: np.ndarray | None = None, weight: float = 0.0) -> np.ndarray:
    gram = X.T @ X + lam * np.eye(X.shape[1])
    if side is not None:
        gram += weight * side @ side.T
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return X @ weights


def obvious_neighbours(k: int, shrinkage: float) -> np.ndarray:
    n = X.shape[1]
    weights = np.zeros((n, n))
    for i in range(n):
        similar = {}
        for j in range(n):
            below = np.sqrt(X[:, i].sum() * X[:, j].sum()) + shrinkage
            if i != j and below > 0:
                similar[j] = X[:, i] @ X[:, j] / below
        for j in sorted(similar, key=lambda j: (-similar[j], j))[:k]:
            weights[j, i] = similar[j]
    return X @ weights


@pytest.mark.parametrize("lam", [0.5, 30.0, 1e4])
def test_ease_is_the_closed_form(block: int, lam: float) -> None:
    gram = count_pairs(DATA.interactions)
    gram.invert(lam)
    np.testing.assert_allclose(ease_scores(gram, history_matrix(DATA.interactions))(EVERYONE), obvious_ease(lam),
                               atol=ROUNDED)  # fmt: skip


def test_what_is_tied_stays_tied_whatever_the_order_of_sums() -> None:
    """Items that the same users have tie exactly, as no order of additions in the inverse makes them by itself."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((80, 40)) < 0.2)
    copies = np.concatenate([items, items + 40])  # item i + 40 is item i again
    pairs = sp.csr_matrix((np.ones(len(copies)), (np.tile(users, 2), copies)), (80, 80))
    gram = GramMatrix(80)
    gram.put(slice(0, 80), (pairs.T @ pairs).toarray())
    gram.invert(5.0)
    lone = sp.csr_matrix(np.vstack([np.eye(80)[3] + np.eye(80)[43], np.eye(80)[7] + np.eye(80)[47]]))
    scores = ease_scores(gram, lone)(np.arange(2))
    others = np.setdiff1d(np.arange(40), [3, 7])
    np.testing.assert_array_equal(scores[:, others], scores[:, others + 40])


def test_counts_survive_the_inversion(block: int) -> None:
    """One matrix serves all lambdas: the last is as the first."""
    gram, scores = count_pairs(DATA.interactions), history_matrix(DATA.interactions)
    for lam in (1.0, 1000.0, 1.0):
        gram.invert(lam)
    np.testing.assert_allclose(ease_scores(gram, scores)(EVERYONE), obvious_ease(1.0), atol=ROUNDED)
    np.testing.assert_array_equal(gram.counts, DATA.interactions.train_counts)


def test_content_as_side_rows(block: int) -> None:
    gram, side = count_pairs(DATA.interactions), content_directions(DATA.features)
    gram.invert(3.0, side, 5.0)
    found = ease_scores(gram, history_matrix(DATA.interactions))(EVERYONE)
    np.testing.assert_allclose(found, obvious_ease(3.0, side, 5.0), atol=ROUNDED)
    assert abs(found - obvious_ease(3.0)).max() > 1e-3
    gram.invert(3.0, side, 0.0)
    np.testing.assert_allclose(
        ease_scores(gram, history_matrix(DATA.interactions))(EVERYONE), obvious_ease(3.0), atol=ROUNDED
    )


def test_rows_of_the_inverse_are_the_inverse(block: int) -> None:
    gram = count_pairs(DATA.interactions)
    gram.invert(2.0)
    inverse = np.linalg.inv(X.T @ X + 2.0 * np.eye(X.shape[1]))
    np.testing.assert_allclose(gram.rows(slice(5, 11)), inverse[5:11], atol=1e-12)
    np.testing.assert_allclose(gram.diagonal, np.diag(inverse), atol=1e-12)


def test_many_items_are_float32_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "MOST_ITEMS_FLOAT64", 5)
    gram = count_pairs(DATA.interactions)
    gram.invert(10.0)
    assert gram.rows(slice(0, 2)).dtype == np.float32
    found = ease_scores(gram, history_matrix(DATA.interactions))(EVERYONE)
    np.testing.assert_allclose(found, obvious_ease(10.0), atol=1e-5)


def test_what_cannot_be_inverted_is_said() -> None:
    gram = GramMatrix(2)
    gram.put(slice(0, 2), np.array([[1.0, 5.0], [5.0, 1.0]]))
    with pytest.raises(FedVLRError, match="larger lambda"):
        gram.invert(1.0)


def test_memory_is_refused_with_a_way_out() -> None:
    assert matrix_bytes(20_000) == 20_000**2 * 8
    assert matrix_bytes(30_000) == 30_000**2 * 4 < 4 * 1024**3  # within the default budget
    with pytest.raises(ConfigError, match=r"40,000 x 40,000 items, 6.0 GiB.*--memory-budget 6.1G"):
        check_memory("EASE", 40_000, 4 * 1024**3)
    check_memory("EASE", 30_000, 4 * 1024**3)


@pytest.mark.parametrize("k", [1, 4, 22])
@pytest.mark.parametrize("shrinkage", [0.0, 2.5])
def test_item_knn_is_the_obvious_loop(block: int, k: int, shrinkage: float) -> None:
    table = find_neighbours(DATA.interactions, 500, shrinkage)
    found = table.scores(history_matrix(DATA.interactions), k)(EVERYONE)
    np.testing.assert_allclose(found, obvious_neighbours(k, shrinkage), atol=1e-12)


@pytest.mark.parametrize("most", [20_000, 5])
def test_the_matrix_is_inverted_where_it_lies(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "MOST_ITEMS_FLOAT64", most)
    gram = count_pairs(DATA.interactions)
    before = gram._matrix
    gram.invert(10.0)
    assert np.shares_memory(before, gram._matrix)
