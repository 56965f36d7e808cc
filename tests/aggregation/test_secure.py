"""The secure sum is the plain quantised sum to the last bit, whoever is lost; one masked upload looks uniform."""

import numpy as np
import pytest
import torch
from helpers.defence_toy import SHAPE, cohort_of, flat, make_uploads, run_rule

from fedvlr_plugin.aggregation.rule import WeightedSum
from fedvlr_plugin.aggregation.secure import LOST_BEFORE, SecureSum, recover, share
from fedvlr_plugin.aggregation.uploads import UploadShape
from fedvlr_plugin.config import Secure
from fedvlr_plugin.rng import Stream, chance, client_keys


def plain_quantised(rule, uploads):
    rows, layers = rule.quantised(uploads)
    table = torch.zeros(SHAPE.n_items, SHAPE.row_width, dtype=torch.int64).index_add_(0, uploads.items, rows)
    return torch.cat([table.view(-1), layers.sum(0)]).double() * rule.step


@pytest.mark.parametrize("lost", [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.2, 0.1)])
@pytest.mark.parametrize("weighting", ["samples", "equal"])
def test_the_sum_is_the_plain_quantised_sum(lost, weighting):
    uploads = make_uploads(20, 2, first=5)
    rule = SecureSum(Secure(bound=8.0, threshold=0.51, lost_before=lost[0], lost_after=lost[1]), 3)
    got = flat(run_rule(rule, uploads, weighting, parts=3))
    counts = rule.counts()
    there = ~chance(client_keys(3, Stream.MASK, 1, LOST_BEFORE, uploads.clients), lost[0])
    assert (counts["lost_before"] > 0) == (lost[0] > 0) and (counts["lost_after"] > 0) == (lost[1] > 0)
    assert torch.equal(got, plain_quantised(rule, uploads.only(there)))
    if not any(lost):
        assert torch.allclose(got, flat(run_rule(WeightedSum(), uploads, weighting)), atol=1e-6)
        assert counts["clamped"] == 0


def test_below_the_threshold_the_round_is_given_up():
    rule = SecureSum(Secure(threshold=0.9, lost_after=0.5), 0)
    assert run_rule(rule, make_uploads(20)) is None
    assert rule.counts()["given_up"] == 1.0


def test_the_largest_uploads_do_not_overflow_and_clamping_is_counted():
    uploads = make_uploads(9, touched=1.0)
    huge = uploads.times(torch.full((9,), 1e9))
    rule = SecureSum(Secure(bound=0.5), 0)
    got = flat(run_rule(rule, huge, "equal"))
    want = torch.stack([flat(huge.dense(i)) for i in range(9)]).clamp(-0.5, 0.5).mean(0)
    assert torch.allclose(got, want, atol=1e-7)
    assert rule.counts()["clamped"] == 9 * SHAPE.size


def test_one_masked_upload_looks_uniform_and_nothing_like_the_upload():
    shape = UploadShape({"views": torch.zeros(1, 4000, 5)})
    uploads = make_uploads(3, shape=shape, touched=0.1)
    views = []
    rule = SecureSum(Secure(), 0)
    rule.seen = lambda masked, start: views.append(masked.copy())
    run_rule(rule, uploads)
    for row in np.concatenate(views, axis=1):
        counts = np.bincount(row >> 24, minlength=256)
        expected = len(row) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 360  # chi-square, 255 degrees: 1 in 20,000 by chance


def test_shamir_needs_the_threshold():
    coefficients = [123456789, 987, 55]
    shares = {h: share(coefficients, h) for h in (0, 3, 7, 9)}
    assert recover(shares) == recover({h: shares[h] for h in (3, 7, 9)}) == 123456789
    assert recover({h: shares[h] for h in (3, 7)}) != 123456789


def test_a_cohort_member_that_never_uploads_is_lost():
    uploads = make_uploads(6)
    rule = SecureSum(Secure(bound=8.0), 0)
    rule.begin(cohort_of(uploads), SHAPE, torch.float64, torch.device("cpu"))
    five = uploads.only(torch.arange(6) != 2)
    rule.take(five)
    assert torch.equal(flat(rule.total()), plain_quantised(rule, five))


def test_pieces_change_nothing(monkeypatch):
    uploads = make_uploads(8)
    wanted = Secure(bound=8.0, threshold=0.51, lost_after=0.1)
    whole = flat(run_rule(SecureSum(wanted, 0), uploads))
    monkeypatch.setattr("fedvlr_plugin.aggregation.secure.PIECE", 16)
    views = []
    rule = SecureSum(wanted, 0)
    rule.seen = lambda masked, start: views.append(start)
    assert torch.equal(flat(run_rule(rule, uploads)), whole)
    assert len(views) == -(-SHAPE.size // 16)
