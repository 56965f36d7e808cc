"""The probes on cases small enough to do by hand, on exact uplinks, and on rows that say nothing."""

import numpy as np
import pytest
import torch

from fedvlr_plugin.audit.inference import auc, correlation, cosine, history_scores, hit_at, recover

W = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
THETA = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
Q = (W[:, None] * THETA).reshape(-1)


def test_auc_by_hand_with_a_tie():
    scores, positive = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert auc(scores, positive) == 3.5 / 4  # pairs: 3>2, 3>1, 2=2 (half), 2>1
    assert np.isnan(auc(scores, np.zeros(4, bool)))


def test_hits_by_hand_and_equal_scores_give_chance():
    scores, positive = np.array([5.0, 4.0, 3.0, 3.0, 1.0]), np.array([True, False, True, False, True])
    assert hit_at(scores, positive, 1) == 1.0
    assert hit_at(scores, positive, 2) == 0.5
    assert hit_at(scores, positive, 3) == pytest.approx((1 + 0.5) / 3)  # one place for two of equal score
    assert hit_at(scores, positive, 4) == pytest.approx(2 / 3)
    assert hit_at(np.zeros(5), positive, 2) == pytest.approx(0.6)


def test_history_is_read_from_the_side_of_the_few():
    """Five items: two of the history (r < 0), three drawn as negatives (r > 0), one that was never met."""
    r = torch.tensor([-2.0, 0.3, 0.4, -1.5, 0.2, 0.0], dtype=torch.float64)
    scores = history_scores(r[:, None] * Q)
    assert np.allclose(scores, [1.0, -0.15, -0.2, 0.75, -0.1, 0.0])
    assert np.allclose(
        history_scores(-r[:, None] * Q), scores
    )  # the head's sign does not matter: the few are the history
    assert not history_scores(torch.zeros(6, 12)).any()


def test_recovery_is_exact_on_multiples_of_w_theta_whatever_the_history_rows_are():
    source = torch.Generator().manual_seed(3)
    rows = torch.rand(40, 1, dtype=torch.float64, generator=source) * Q
    rows[:4] = -3.0 * Q + 0.5 * torch.randn(4, 12, dtype=torch.float64, generator=source)
    found = recover(rows, 3)
    assert cosine(found.head, THETA) == pytest.approx(1.0, abs=1e-12)
    assert torch.allclose(found.router, W, atol=1e-12, rtol=0)


def test_noise_and_other_clients_histories_give_chance():
    source = torch.Generator().manual_seed(4)
    found, mine = [], np.arange(200) < 20
    for _ in range(60):
        found.append(auc(history_scores(torch.randn(200, 12, generator=source)), mine))
    assert abs(np.mean(found) - 0.5) < 4 * 0.067 / np.sqrt(60)  # sd of one AUC: sqrt(221 / (12 * 20 * 180)) = 0.067


def test_correlation_looks_at_differences_between_clients_only():
    truth = torch.tensor([[0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    assert correlation(truth, truth) == pytest.approx(1.0)
    assert np.isnan(correlation(truth.mean(0).expand(3, 2), truth))  # the same guess for everyone says nothing
    assert cosine(torch.zeros(2), torch.ones(2)) == 0.0
