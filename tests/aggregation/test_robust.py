"""Robust rules against slow, obvious numpy; equal inputs give the weighted sum; too few malicious clients fail."""

import numpy as np
import pytest
import torch
from helpers.defence_toy import SHAPE, cohort_of, dense, flat, make_uploads, run_rule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fedvlr_plugin.aggregation import robust
from fedvlr_plugin.aggregation.robust import chosen, make_robust_rule, median_weights, squared_distances
from fedvlr_plugin.aggregation.rule import WeightedSum
from fedvlr_plugin.config import Robust

RULES = ["norm_clip", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]


def slow_coordinate(uploads, weights, middle):
    """One coordinate at a time, over the clients that touched its row."""
    values, out = dense(uploads).numpy(), []
    touched = np.zeros((len(uploads.clients), SHAPE.n_items), dtype=bool)
    touched[uploads.owner.numpy(), uploads.items.numpy()] = True
    for at in range(values.shape[1]):
        item = at // SHAPE.row_width
        who = touched[:, item] if item < SHAPE.n_items else np.ones(len(values), dtype=bool)
        out.append(weights[who].sum() * middle(values[who, at]) if who.any() else 0.0)
    return np.array(out)


def slow_trimmed(values, share=0.3):
    cut = int(share * len(values) + 1e-9)
    return np.sort(values)[cut : len(values) - cut].mean()


def slow_krum(values, malicious):
    n = len(values)
    scores = []
    for i in range(n):
        others = sorted(((values[i] - values[j]) ** 2).sum() for j in range(n) if j != i)
        scores.append(sum(others[: max(n - malicious - 2, 1)]))
    return np.argsort(scores, kind="stable")


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99), touched=st.sampled_from([0.1, 0.5, 1.0]), parts=st.integers(1, 3))
def test_median_and_trimmed_mean_are_the_slow_ones(n, seed, touched, parts):
    uploads = make_uploads(n, seed, touched)
    weights = cohort_of(uploads).weights(uploads.sizes).numpy()
    for rule, middle in (("median", np.median), ("trimmed_mean", slow_trimmed)):
        got = flat(run_rule(make_robust_rule(Robust(rule=rule, trim=0.3)), uploads, parts=parts))
        np.testing.assert_allclose(got.numpy(), slow_coordinate(uploads, weights, middle), atol=1e-12)


def test_chunks_change_nothing(monkeypatch):
    uploads = make_uploads(9, 1)
    before = flat(run_rule(make_robust_rule(Robust(rule="median")), uploads))
    monkeypatch.setattr(robust, "COORDINATE_CHUNK", 20)
    assert torch.equal(flat(run_rule(make_robust_rule(Robust(rule="median")), uploads)), before)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 99))
def test_krum_is_the_slow_one(n, seed):
    uploads = make_uploads(n, seed)
    values = dense(uploads).numpy()
    distances = ((values[:, None] - values[None]) ** 2).sum(2)
    np.testing.assert_allclose(squared_distances(uploads).numpy(), distances, atol=1e-10)
    malicious = int(0.3 * n)
    best = slow_krum(values, malicious)
    assert torch.nonzero(chosen(uploads, 0.3, several=False))[:, 0].tolist() == [best[0]]
    assert set(torch.nonzero(chosen(uploads, 0.3, several=True))[:, 0].tolist()) == set(best[: n - malicious].tolist())


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(2, 12), seed=st.integers(0, 99), touched=st.sampled_from([0.2, 1.0]), lie=st.sampled_from([1, -50])
)
def test_geometric_median_is_the_one_that_scipy_finds(n, seed, touched, lie):
    uploads = make_uploads(n, seed, touched)
    factors = torch.ones(n, dtype=torch.float64)
    factors[0] = lie
    uploads = uploads.times(factors)
    values = dense(uploads).numpy()

    def total(point):
        return np.linalg.norm(values - point, axis=1).sum()

    def slope(point):
        apart = point - values
        return (apart / np.linalg.norm(apart, axis=1, keepdims=True).clip(1e-12)).sum(0)

    found = minimize(total, np.median(values, axis=0), jac=slope, method="BFGS", options={"gtol": 1e-9})
    got = flat(run_rule(make_robust_rule(Robust(rule="geometric_median")), uploads, "equal")).numpy()
    assert total(got) <= found.fun * (1 + 1e-9)
    if n > 2:  # two points have a whole line of medians
        np.testing.assert_allclose(got, found.x, atol=1e-4 * np.abs(found.x).max())


def test_geometric_median_lies_at_an_upload_that_most_agree_with():
    """Four points of a line and one beside it: the middle one, exactly."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [7.0, 0.0], [9.0, 1.0]], dtype=torch.float64)
    distances = torch.cdist(points, points).square()
    assert torch.equal(median_weights(distances), torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64))
    points[2] = torch.tensor([2.0, 4.0])
    beta = median_weights(torch.cdist(points, points).square())
    assert (beta > 0).all() and float(beta.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weighting", ["samples", "equal"])
def test_equal_uploads_give_the_weighted_sum(rule, weighting):
    uploads = make_uploads(7, 3, touched=1.0, same=True)
    want = flat(run_rule(WeightedSum(), uploads, weighting))
    assert torch.allclose(flat(run_rule(make_robust_rule(Robust(rule=rule)), uploads, weighting)), want, atol=1e-12)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_rows_touched_by_few_still_weigh_what_their_clients_weigh(rule):
    uploads = make_uploads(7, 3, touched=0.4, same=True)
    want = flat(run_rule(WeightedSum(), uploads))
    assert torch.allclose(flat(run_rule(make_robust_rule(Robust(rule=rule)), uploads)), want, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_malicious_clients_below_the_breakdown_point_do_not_decide(rule):
    honest = make_uploads(20, 5, touched=1.0, same=True)
    factors = torch.ones(20, dtype=torch.float64)
    factors[[2, 8, 13]] = -1e6
    wanted = Robust(rule=rule, trim=0.2, malicious=0.2)
    want = flat(run_rule(WeightedSum(), honest, "equal"))
    got = flat(run_rule(make_robust_rule(wanted), honest.times(factors), "equal"))
    plain = flat(run_rule(WeightedSum(), honest.times(factors), "equal"))
    assert (plain - want).norm() > 1000 * want.norm()
    if rule == "norm_clip":  # bounded, not removed: 3 of 20 turned round cost 30 % of the length
        assert torch.allclose(got, 0.7 * want, atol=1e-9)
    else:
        assert torch.allclose(got, want, atol=1e-9)


def test_more_malicious_than_honest_clients_break_the_median():
    honest = make_uploads(9, 5, touched=1.0, same=True)
    factors = torch.tensor([-50.0] * 5 + [1.0] * 4, dtype=torch.float64)
    want = flat(run_rule(WeightedSum(), honest, "equal"))
    got = flat(run_rule(make_robust_rule(Robust(rule="median")), honest.times(factors), "equal"))
    assert torch.allclose(got, -50.0 * want, atol=1e-9)


def test_norm_clip_bounds_every_client_and_says_so():
    uploads = make_uploads(6, 0)
    rule = make_robust_rule(Robust(rule="norm_clip", clip=0.5))
    got = flat(run_rule(rule, uploads, "equal"))
    values = dense(uploads)
    norms = values.norm(dim=1)
    want = (values * (0.5 / norms).clamp(max=1.0)[:, None]).mean(0)
    assert torch.allclose(got, want, atol=1e-12)
    assert rule.counts() == {"clip": 0.5, "clipped": 1.0}
    rule = make_robust_rule(Robust(rule="norm_clip"))
    run_rule(rule, uploads)
    assert rule.counts()["clip"] == pytest.approx(float(np.median(norms.numpy())))


@pytest.mark.parametrize("rule", RULES)
def test_nobody_means_the_round_is_skipped_and_one_client_is_enough(rule):
    uploads = make_uploads(3)
    nobody = uploads.only(torch.zeros(3, dtype=torch.bool))
    assert run_rule(make_robust_rule(Robust(rule=rule)), nobody) is None
    alone = uploads.only(torch.tensor([False, True, False]))
    got = flat(run_rule(make_robust_rule(Robust(rule=rule)), alone))
    assert torch.allclose(got, dense(alone)[0], atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_zero_uploads_give_a_zero_sum(rule):
    uploads = make_uploads(4).times(torch.zeros(4))
    assert flat(run_rule(make_robust_rule(Robust(rule=rule)), uploads)).abs().sum() == 0
