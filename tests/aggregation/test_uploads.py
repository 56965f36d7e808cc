"""Uploads client by client: they add up to what the engines sum, are sparse, and broken ones are left out."""

import pytest
import torch
from helpers.federation_toy import ALL, assert_same, build, cases, train
from helpers.toy import make_toy

from fedvlr_plugin.aggregation.rule import WeightedSum
from fedvlr_plugin.aggregation.uploads import RunningSum, UploadShape, join_uploads
from fedvlr_plugin.config import Conditions, Faults
from fedvlr_plugin.federation.cohort import answers


@cases
@pytest.mark.parametrize("engine", ["batched", "sequential"])
def test_uploads_one_by_one_add_up_to_the_engines_own_sum(make_spec, backbone, fusion, engine):
    plain = build(make_spec, backbone, fusion)
    apart = build(make_spec, backbone, fusion, engine, block=4 if engine == "batched" else None)
    apart.rule = WeightedSum()
    first, second = train(plain), train(apart)
    second.sums = apart.rule.sum.tensors()
    assert_same(plain, apart, first, second)


@cases
def test_both_engines_give_the_same_single_uploads(make_spec, backbone, fusion):
    parts = {}
    for engine in ("batched", "sequential"):
        federation = build(make_spec, backbone, fusion, engine)
        federation.round(1)
        collected = []
        broadcast = federation.server.broadcast()
        federation.engine.local_round(broadcast, ALL, torch.ones(len(ALL)), 2, collected.append)
        joined = join_uploads(collected)
        parts[engine] = {int(user): joined.dense(place) for place, user in enumerate(joined.clients)}
        touched = torch.unique(joined.keys)
        assert len(touched) == len(joined.keys) and bool((touched == joined.keys).all()), "ascending and distinct"
    assert parts["batched"].keys() == parts["sequential"].keys()
    for user, upload in parts["batched"].items():
        for name, value in upload.items():
            assert torch.allclose(value, parts["sequential"][user][name], atol=1e-9, rtol=0), (user, name)


def test_shapes_translate_both_ways_and_norms_are_those_of_the_dense_upload(make_spec):
    federation = build(make_spec, "FedNCF", "blfm")
    broadcast = federation.server.broadcast()
    named = broadcast.named()
    shape = UploadShape(named)
    rows, layers = shape.flatten(named)
    assert rows.numel() + layers.numel() == shape.size == sum(v.numel() for v in named.values())
    for name, value in shape.unflatten(rows, layers).items():
        assert torch.equal(value, named[name])
    collected = []
    federation.engine.local_round(broadcast, ALL, torch.ones(len(ALL)), 1, collected.append)
    joined = join_uploads(collected)
    for place, norm in enumerate(joined.norms()):
        dense = torch.cat([v.reshape(-1) for v in joined.dense(place).values()])
        assert float(norm) == pytest.approx(float(dense.norm()))
    some = torch.arange(len(joined.clients)) % 2 == 1
    kept = joined.only(some)
    assert torch.equal(kept.clients, joined.clients[some]) and torch.equal(kept.norms(), joined.norms()[some])
    total = RunningSum(shape, rows.dtype, rows.device)
    total.add(kept, torch.ones(len(kept.clients)))
    by_hand = sum(joined.dense(int(p))["views"] for p in torch.nonzero(some)[:, 0])
    assert torch.allclose(total.tensors()["views"], by_hand)


@cases
@pytest.mark.parametrize("engine", ["batched", "sequential"])
def test_a_client_that_is_not_finite_gets_weight_0_and_is_counted(make_spec, backbone, fusion, engine):
    """Poisons one client's private state; the others train on as if it had not been there."""
    federation = build(make_spec, backbone, fusion, engine, participation=1.0)
    federation.round(1)
    poison(federation, user=2)
    before = federation.server.snapshot()
    uplink = federation.round(2)
    assert uplink.left_out == {"not finite": 1}
    assert all(bool(torch.isfinite(v).all()) for v in uplink.sums.values())
    after = federation.server.snapshot()
    assert any(not torch.equal(before[n], after[n]) for n in before)
    assert all(bool(torch.isfinite(v).all()) for v in after.values())
    others = torch.tensor([u for u in ALL.tolist() if u != 2])
    assert bool(torch.isfinite(federation.score(others)).all())


def test_the_others_count_as_they_would_without_the_broken_client(make_spec):
    both = [build(make_spec, "FedAvg", "blfm", engine, participation=1.0) for engine in ("batched", "sequential")]
    uplinks = []
    for federation in both:
        federation.round(1)
        poison(federation, user=2)
        uplinks.append(federation.round(2))
    for name, value in uplinks[0].sums.items():
        assert torch.allclose(value, uplinks[1].sums[name], atol=1e-9, rtol=0)


@pytest.mark.parametrize("engine", ["batched", "sequential"])
def test_without_survivors_the_round_is_skipped(make_spec, engine):
    federation = build(make_spec, "FCF", "none", engine, participation=1.0)
    federation.round(1)
    for user in ALL.tolist():
        poison(federation, user)
    before = federation.server.snapshot()
    uplink = federation.round(2)
    assert uplink.clients == 0 and uplink.left_out["not finite"] > 0
    assert all(torch.equal(before[n], v) for n, v in federation.server.snapshot().items())


def poison(federation, user):
    engine = federation.engine
    if hasattr(engine, "store"):
        engine.store.values["head"][int(federation.problem.histories.slot_of[user])] = float("nan")
    else:
        with torch.no_grad():
            next(iter(engine.clients[user].head.values())).fill_(float("nan"))


def test_drop_outs_and_stragglers_are_drawn_by_counter_and_counted():
    faults, cohort = Faults(dropout=0.3, stragglers=0.25), torch.arange(20_000)
    drawn = answers(faults, 7, 3, cohort)
    assert drawn.lost / 20_000 == pytest.approx(0.3, abs=0.02)
    assert len(drawn.late) / (20_000 - drawn.lost) == pytest.approx(0.25, abs=0.02)
    again = answers(faults, 7, 3, cohort[100:200])
    assert set(again.in_time.tolist()) == set(drawn.in_time.tolist()) & set(range(100, 200))
    assert not torch.equal(answers(faults, 7, 4, cohort).late, drawn.late)
    nobody = answers(Faults(dropout=1.0), 0, 1, cohort)
    assert len(nobody.in_time) == len(nobody.late) == 0 and nobody.counts() == {"dropped out": 20_000}


@pytest.mark.parametrize("engine", ["batched", "sequential"])
def test_stragglers_learn_at_home_but_do_not_count(make_spec, engine):
    spec = make_spec("FedAvg", participation=1.0)
    late = spec.model_copy(update={"conditions": Conditions(faults=Faults(stragglers=1.0))})
    lost = spec.model_copy(update={"conditions": Conditions(faults=Faults(dropout=1.0))})
    for changed, moves in ((late, True), (lost, False)):
        federation = build(lambda *a, **k: changed, "FedAvg", "none", engine)  # noqa: B023
        shared, scores = federation.server.snapshot(), federation.score(ALL)
        uplink = federation.round(1)
        assert uplink.clients == 0 and sum(uplink.left_out.values()) == len(ALL)
        assert all(torch.equal(shared[n], v) for n, v in federation.server.snapshot().items())
        assert torch.equal(scores, federation.score(ALL)) is not moves


def test_toy_has_a_client_per_user():
    assert make_toy().interactions.n_users == len(ALL)
