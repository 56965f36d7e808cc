"""HR and NDCG: golden by hand, ties as a mean over orders, and agreement with RecBole's evaluator."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.metrics import hit_rate, ndcg, summary
from fedvlr_plugin.evaluation.ranks import Ranks


def make(above: list[int], tied: list[int], cold: list[bool] | None = None) -> Ranks:
    n = len(above)
    flags = np.array(cold if cold is not None else [False] * n)
    return Ranks(np.arange(n), np.zeros(n, dtype=np.int64), np.array(above), np.array(tied), flags)


def test_golden_without_ties() -> None:
    ranks = make([0, 2, 49, 50], [0, 0, 0, 0])
    assert hit_rate(ranks, 50).tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(ndcg(ranks, 50), [1.0, 0.5, 1 / np.log2(51), 0.0], rtol=1e-12)


def test_golden_with_ties() -> None:
    # ranks 1..4 equally likely, of which 1 and 2 are within the first three
    ranks = make([1], [3])
    np.testing.assert_allclose(hit_rate(ranks, 3), [2 / 4])
    np.testing.assert_allclose(ndcg(ranks, 3), [(1 / np.log2(3) + 1 / np.log2(4)) / 4])


def test_summary_splits_warm_and_cold() -> None:
    result = summary(make([0, 60, 1, 60], [0, 0, 0, 0], [False, False, True, True]))
    assert result["hr@50"] == 50 and result["hr@50_warm"] == 50 and result["hr@50_cold"] == 50
    assert result["ndcg@50_warm"] == 50 and result["ndcg@50_cold"] == pytest.approx(50 / np.log2(3))
    assert result["users"] == 4 and result["cold_users"] == 2 and result["cold_share"] == 50


def test_summary_leaves_out_a_group_nobody_is_in() -> None:
    result = summary(make([0], [0]))
    assert "hr@50_cold" not in result and result["cold_users"] == 0 and result["hr@50_warm"] == 100


def test_a_cut_off_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        hit_rate(make([0], [0]), 0)


@given(st.integers(0, 80), st.integers(0, 80), st.integers(1, 60))
def test_ties_are_the_mean_over_all_orders(above: int, tied: int, k: int) -> None:
    untied = make(list(range(above, above + tied + 1)), [0] * (tied + 1))
    both = make([above], [tied])
    assert hit_rate(both, k)[0] == pytest.approx(hit_rate(untied, k).mean(), abs=1e-12)
    assert ndcg(both, k)[0] == pytest.approx(ndcg(untied, k).mean(), abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_recbole_on_untied_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)  # RecBole 1.2.1 still uses the alias numpy dropped
    from recbole.evaluator import NDCG, Hit
    from recbole.evaluator.collector import DataStruct

    n_users, n_items, k = 200, 300, 50
    scores = torch.from_numpy(np.random.default_rng(3).permutation(n_users * n_items)).double().view(n_users, n_items)
    positive = torch.arange(n_users) % n_items
    best = scores.topk(k, dim=1).indices
    hits = (best == positive[:, None]).int()
    struct = DataStruct()
    struct.set("rec.topk", torch.cat([hits, torch.ones(n_users, 1, dtype=torch.int32)], dim=1))
    config = {"topk": [k], "metric_decimal_place": 12}
    theirs = OrderedDict(Hit(config).calculate_metric(struct), **NDCG(config).calculate_metric(struct))
    above = (scores > scores[torch.arange(n_users), positive][:, None]).sum(dim=1)
    ours = summary(make(above.tolist(), [0] * n_users), k)
    assert 0.05 < theirs["hit@50"] < 0.5, "the case must have hits and misses"
    assert ours["hr@50"] == pytest.approx(100 * theirs["hit@50"], abs=1e-6)
    assert ours["ndcg@50"] == pytest.approx(100 * theirs["ndcg@50"], abs=1e-6)
