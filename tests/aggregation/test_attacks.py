"""Malicious clients are a fixed share, an attack changes what it says and no more, and promotion raises its item."""

import pytest
import torch
from helpers.defence_toy import build_under, cohort_of, dense, make_uploads

from fedvlr_plugin.aggregation.attacks import draw_malicious_clients, make_transform
from fedvlr_plugin.aggregation.uploads import join_uploads
from fedvlr_plugin.config import Attack, Conditions, Robust
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError

POPULARITY = torch.tensor([3, 2, 0, 5, 0, 1, 9])


def test_malicious_clients_are_a_fixed_share_by_seed():
    malicious = draw_malicious_clients(0, 204, 0.1)
    assert int(malicious.sum()) == 20
    assert torch.equal(malicious, draw_malicious_clients(0, 204, 0.1))
    assert not torch.equal(malicious, draw_malicious_clients(1, 204, 0.1))
    assert int(draw_malicious_clients(0, 204, 0.0).sum()) == 0 and int(draw_malicious_clients(0, 204, 1.0).sum()) == 204
    assert bool(
        (draw_malicious_clients(0, 204, 0.1) <= draw_malicious_clients(0, 204, 0.3)).all()
    )  # a larger share adds malicious clients


@pytest.mark.parametrize("kind, factor", [("sign_flip", -4.0), ("scaling", 4.0)])
def test_flipping_and_scaling(kind, factor):
    uploads = make_uploads(8)
    attack = make_transform(Attack(kind=kind, share=0.5, scale=4.0), 3, 8, POPULARITY)
    malicious = draw_malicious_clients(3, 8, 0.5)
    got = dense(attack(uploads, cohort_of(uploads)))
    want = dense(uploads) * torch.where(malicious, factor, 1.0)[:, None]
    assert torch.equal(got, want) and int(malicious.sum()) == 4


def test_promotion_forges_the_target_row_of_malicious_clients_only():
    uploads = make_uploads(8, touched=0.6)
    transform = make_transform(Attack(kind="promotion", share=0.5, scale=2.0), 3, 8, POPULARITY)
    assert transform.item == 2  # the first of the least popular
    got = transform(uploads, cohort_of(uploads))
    assert torch.equal(got.keys, got.keys.unique())
    malicious = draw_malicious_clients(3, 8, 0.5)
    for position in range(8):
        before, _ = uploads.shape.flatten(uploads.dense(position))
        after, layers = got.shape.flatten(got.dense(position))
        others = torch.arange(7) != 2
        assert torch.equal(after[others], before[others]) and torch.equal(layers, uploads.layers[position])
        if malicious[position]:
            units = torch.nn.functional.normalize(before, dim=1).sum(0)
            want = -2.0 * before.norm(dim=1).max() * units / units.norm()
            assert torch.allclose(after[2], want, atol=1e-12)
        else:
            assert torch.equal(after[2], before[2])


@pytest.mark.parametrize("kind", ["sign_flip", "promotion"])
def test_blocks_change_nothing(kind):
    uploads = make_uploads(8)
    transform = make_transform(Attack(kind=kind, share=0.5), 0, 8, POPULARITY)
    whole = transform(uploads, cohort_of(uploads))
    halves = [uploads.only(torch.arange(8) < 3), uploads.only(torch.arange(8) >= 3)]
    parts = join_uploads([transform(half, cohort_of(uploads)) for half in halves])
    assert torch.equal(whole.keys, parts.keys) and torch.equal(whole.rows, parts.rows)


def test_an_item_that_is_not_there():
    with pytest.raises(ConfigError, match="items 0 to 6"):
        make_transform(Attack(kind="promotion", item=7), 0, 8, POPULARITY)


@pytest.mark.parametrize(
    "fusion, who", [("none", "malicious"), ("none", "honest"), ("blfm", "malicious"), ("blfm", "honest")]
)
def test_promotion_raises_the_target(make_spec, fusion, who):
    """In a whole run (many items, so that negatives are the majority): the score of the target, over the mean of all scores, is higher than without attack.

    For malicious clients by the attack's construction; for the honest as far as their heads are alike.
    """
    scores = {}
    for share in (0.0, 0.4):
        conditions = Conditions(attack=Attack(kind="promotion", share=share, item=3))
        federation = build_under(make_spec, conditions, "FedAvg", fusion, data=generated(30, 120, 300, width=6))
        for number in range(1, 16):
            federation.round(number)
        malicious = draw_malicious_clients(federation.spec.seed, 30, 0.4)
        table = federation.score(torch.nonzero(malicious if who == "malicious" else ~malicious)[:, 0])
        scores[share] = float((table[:, 3] - table.mean(1)).mean())
    assert scores[0.4] > scores[0.0] + 0.1


@pytest.mark.parametrize("rule", ["norm_clip", "median", "trimmed_mean", "krum", "multi_krum"])
@pytest.mark.parametrize("backbone, fusion", [("FedAvg", "blfm"), ("FedNCF", "blfm"), ("FedRAP", "none")])
def test_rules_under_attack_in_whole_rounds(make_spec, rule, backbone, fusion):
    """Both engines come to the same model under each rule and an attack, and the model moves."""
    conditions = Conditions(attack=Attack(kind="sign_flip", share=0.2), robust=Robust(rule=rule))
    models = []
    for engine, block in (("batched", 4), ("sequential", None)):
        federation = build_under(make_spec, conditions, backbone, fusion, engine, block=block)
        before = federation.server.snapshot()
        for number in (1, 2):
            federation.round(number)
        models.append(federation.server.snapshot())
    assert any(not torch.equal(models[0][name], before[name]) for name in before)
    for name, value in models[0].items():
        assert torch.allclose(value, models[1][name], atol=1e-8), name
