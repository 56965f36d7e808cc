"""Floors: closed form of chance, orders of popularity and cold-first, and the known figures on KU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.errors import UnknownNameError
from fedvlr_plugin.evaluation.floors import rank_floor
from fedvlr_plugin.evaluation.metrics import hit_rate, ndcg, summary


def make(histories: list[list[int]], valid: list[int], test: list[int], n_items: int) -> Interactions:
    indptr = np.cumsum([0, *(len(h) for h in histories)]).astype(np.int64)
    items = np.array([i for h in histories for i in h], dtype=np.int64)
    names = tuple(f"u{u}" for u in range(len(histories))), tuple(f"i{i}" for i in range(n_items))
    return Interactions(len(histories), n_items, indptr, items, np.array(valid), np.array(test), *names)


SMALL = make([[0, 1], [0, 2], [0]], valid=[2, 1, 3], test=[3, 4, 1], n_items=100)


def test_chance_is_k_over_candidates_and_the_mean_gain() -> None:
    ranks = rank_floor("chance", SMALL, "test")
    left = np.array([97, 97, 98])  # 100 items less training and validation
    np.testing.assert_allclose(hit_rate(ranks, 50), 50 / left)
    np.testing.assert_allclose(ndcg(ranks, 50), (1 / np.log2(np.arange(50) + 2)).sum() / left)


def test_chance_with_fewer_candidates_than_k_is_certain() -> None:
    few = make([[0, 1]], valid=[2], test=[3], n_items=6)
    assert hit_rate(rank_floor("chance", few, "test"), 50).tolist() == [1.0]


def test_popularity_counts_users_and_ties_are_kept() -> None:
    ranks = rank_floor("popularity", SMALL, "test")
    # user 0: 3 is never seen: nothing above it (0, 1, 2 masked), 96 others unseen. user 1: 0, 2, 1 masked; the same.
    # user 2: item 1 counts 1, as does 2; 0 (counts 3) is masked.
    assert ranks.above.tolist() == [0, 0, 0]
    assert ranks.tied.tolist() == [96, 96, 1]


def test_cold_first_puts_unseen_items_on_top() -> None:
    ranks = rank_floor("cold-first", SMALL, "test")
    assert ranks.above.tolist() == [0, 0, 96]
    assert ranks.tied.tolist() == [96, 96, 1]
    assert ranks.cold.tolist() == [True, True, False]


def test_unknown_floor() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'popularity'"):
        rank_floor("popular", SMALL, "test")


def test_known_figures_on_ku() -> None:
    root = os.environ.get("FEDVLR_DATA")
    path = Path(root or "") / "ku" / "inter.csv"
    if not root or not path.is_file():
        pytest.skip("FEDVLR_DATA has no ku/inter.csv")
    rows = pd.read_csv(path)
    users, user_tokens = pd.factorize(rows["userID"], sort=True)
    tokens = tuple(str(i) for i in range(560))
    data = Interactions.from_labels(
        users.astype(np.int64),
        rows["itemID"].to_numpy(np.int64),
        rows["split_label"].to_numpy(np.int64),
        tuple(str(t) for t in user_tokens),
        tokens,
    )
    figures = {name: summary(rank_floor(name, data, "test")) for name in ("popularity", "cold-first")}
    assert figures["popularity"]["hr@50"] == pytest.approx(19.4, abs=0.05)
    assert figures["popularity"]["ndcg@50"] == pytest.approx(5.6, abs=0.05)
    assert figures["cold-first"]["hr@50"] == pytest.approx(54.5, abs=0.05)
    assert figures["cold-first"]["ndcg@50"] == pytest.approx(19.0, abs=0.05)
    assert figures["popularity"]["cold_users"] == 88
