"""The conformance suite: every backbone x fusion, both engines, on one contract.

A backbone that is registered, from inside or outside, is picked up by name.
"""

import numpy as np
import pytest
import torch
from helpers.federation_toy import ALL, assert_same, build, cases, train
from helpers.toy import make_toy

from fedvlr_plugin.engines.compiled import available as loops
from fedvlr_plugin.engines.sequential import SequentialEngine


@cases
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("compiled", [True, False])
def test_engines_agree(make_spec, monkeypatch, backbone, fusion, optimizer, compiled):
    """Unequal clients, several mini-batches per client, partial participation, three rounds, 1e-9; both kinds of loops."""
    if not compiled:
        monkeypatch.setattr(loops, "_available", lambda: False)
    a = build(make_spec, backbone, fusion, "sequential", client_optimizer=optimizer)
    b = build(make_spec, backbone, fusion, block=3, client_optimizer=optimizer)
    assert int(a.problem.sampler.steps_per_epoch().max()) > 2
    assert_same(a, b, train(a), train(b))


@cases
def test_engines_agree_under_the_released_protocol(make_spec, backbone, fusion):
    changes = {"keep_private_state": False, "negative_pool": "train_items", "negatives": 1, "name": "as_released"}
    a = build(make_spec, backbone, fusion, "sequential", **changes)
    b = build(make_spec, backbone, fusion, **changes)
    assert_same(a, b, train(a), train(b))


@cases
def test_block_size_and_threads_change_nothing(make_spec, backbone, fusion):
    a, b = build(make_spec, backbone, fusion, block=1), build(make_spec, backbone, fusion, block=100)
    first = train(a)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        second = train(b)
        assert_same(a, b, first, second)
    finally:
        torch.set_num_threads(threads)


@cases
def test_the_same_run_twice_is_bit_identical(make_spec, backbone, fusion):
    a, b = build(make_spec, backbone, fusion), build(make_spec, backbone, fusion)
    train(a), train(b)
    assert torch.equal(a.score(ALL), b.score(ALL))


@cases
def test_the_order_of_clients_changes_nothing(make_spec, backbone, fusion):
    a = build(make_spec, backbone, fusion, "sequential")
    b = build(make_spec, backbone, fusion, "sequential")
    broadcast = a.server.broadcast()
    cohort = torch.tensor([1, 4, 7, 8])
    weights = a.problem.client_weights(cohort)
    one = a.engine.local_round(broadcast, cohort, weights, 1)
    other = b.engine.local_round(broadcast, cohort.flip(0), weights.flip(0), 1)
    for name, value in one.sums.items():
        assert torch.allclose(value, other.sums[name], atol=1e-12, rtol=0)


@cases
def test_the_pull_back_equals_autograd_through_the_whole_model(make_spec, backbone, fusion):
    """Client by client and step by step, the loss as a function of the server's own weights."""
    a = build(make_spec, backbone, fusion, "sequential", participation=1.0)
    whole = build(make_spec, backbone, fusion, "sequential", participation=1.0)
    uplink = a.engine.local_round(a.server.broadcast(), ALL, a.problem.client_weights(ALL), 1)
    shared = list(a.server.model.parameters())
    graph = a.server.model().named()
    reached = [n for n in uplink.sums if graph[n].requires_grad]
    got = torch.autograd.grad(
        [graph[n] for n in reached],
        shared,
        [uplink.sums[n] for n in reached],
        allow_unused=True,
        materialize_grads=True,
    )
    engine, parameters = whole.engine, list(whole.server.model.parameters())
    expected = [torch.zeros_like(p) for p in parameters]
    alphas = whole.problem.client_weights(ALL)
    for user in ALL.tolist():
        slot = whole.problem.histories.slot_of[user : user + 1]
        if int(whole.problem.sampler.samples_per_epoch()[slot]) == 0:
            continue
        client, block = engine._start(user), whole.problem.sampler.block(slot)
        for epoch in range(2):
            for step in block.epoch(1, epoch):
                private = client.dense() + ([] if client.own is None else [client.own])
                loss = engine.training.loss(client, whole.server.model(), block.history_items, step, 1)
                grads = torch.autograd.grad(loss, [*private, *parameters], allow_unused=True, materialize_grads=True)
                for leaf, grad in zip(private, grads, strict=False):
                    leaf.grad = grad
                for total, grad in zip(expected, grads[len(private) :], strict=True):
                    total += alphas[user] * grad
                for optimizer in client.optimizers:
                    optimizer.step()
                if client.own is not None:
                    engine.training.step_own(client, torch.unique(step.items))
    for g, e in zip(got, expected, strict=True):
        assert torch.allclose(g, e, atol=1e-11, rtol=0)


@cases
def test_uploads_hold_nothing_private(make_spec, backbone, fusion):
    """By name: only what was broadcast goes up. By value: no private row of any client occurs in it."""
    federation = build(make_spec, backbone, fusion, participation=1.0)
    uplink = train(federation)
    assert set(uplink.sums) == set(federation.server.broadcast().named())
    sent = torch.cat([value.flatten() for value in uplink.sums.values()])
    sent = set(sent[sent != 0].tolist())
    store = federation.engine.store
    private = [values[store.steps["head"] > 0].flatten() for values in store.values.values()]
    private += [moment[store.steps["head"] > 0].flatten() for pair in store.moments.values() for moment in pair]
    if federation.engine.own is not None:
        private.append(federation.engine.own.dense(torch.arange(9)).flatten())
    values = torch.cat(private)
    assert sent.isdisjoint(values[values != 0].tolist())


@cases
def test_private_state_survives_rounds_and_is_what_evaluation_uses(make_spec, backbone, fusion):
    federation = build(make_spec, backbone, fusion, participation=1.0)
    federation.round(1)
    store = federation.engine.store
    trained = store.steps["head"] > 0
    assert trained.sum() == 8
    before = {name: values.clone() for name, values in store.values.items()}
    for name, values in before.items():
        assert not torch.allclose(values[trained], store.initial[name].expand_as(values[trained]))
        assert torch.equal(values[~trained][0], store.initial[name])
    scores = federation.score(ALL)
    store.values["head"] += 0.5
    assert not torch.allclose(scores, federation.score(ALL))
    store.values["head"].copy_(before["head"])
    assert torch.equal(scores, federation.score(ALL))
    if federation.engine.own is not None:
        own = federation.engine.own
        assert any(len(rows) for rows in own.rows)
        own.values.write(np.concatenate(own.rows), np.zeros((own.values.used, own.values.width)))
        assert not torch.allclose(scores, federation.score(ALL))


@cases
def test_a_client_outside_the_cohort_is_frozen(make_spec, backbone, fusion):
    federation = build(make_spec, backbone, fusion)
    store = federation.engine.store
    federation.engine.local_round(
        federation.server.broadcast(), torch.tensor([2, 8]), torch.tensor([0.3, 0.7]).double(), 1
    )
    others = federation.problem.histories.slot_of[torch.tensor([1, 3, 4, 5, 6, 7])]
    for name, values in store.values.items():
        assert torch.equal(values[others], store.initial[name].expand(6, -1))
        assert all(not moment[others].any() for moment in store.moments[name])


@pytest.mark.parametrize("modalities", [(), ("text",), ("vision", "text", "audio")])
@cases
def test_any_number_of_modalities(make_spec, backbone, fusion, modalities):
    if fusion == "vbpr" and not modalities:
        pytest.skip("the naive VBPR fusion needs content; its refusal is tested with the views")
    a = build(make_spec, backbone, fusion, "sequential", make_toy(modalities))
    b = build(make_spec, backbone, fusion, "batched", make_toy(modalities))
    assert_same(a, b, train(a, 2), train(b, 2))


@cases
def test_snapshots_bring_a_round_back(make_spec, backbone, fusion):
    for engine in ("batched", "sequential"):
        federation = build(make_spec, backbone, fusion, engine, participation=1.0)
        train(federation, 2)
        best, scores = federation.state(moments=False), federation.score(ALL)
        federation.round(3)
        assert not torch.equal(scores, federation.score(ALL))
        federation.load(best, moments=False)
        assert torch.equal(scores, federation.score(ALL))


def test_router_weights_are_a_distribution_and_agree(make_spec):
    a = build(make_spec, "FCF", "blfm", "sequential", router_lr=0.05)
    b = build(make_spec, "FCF", "blfm", router_lr=0.05)
    train(a), train(b)
    weights = b.router_weights()
    assert weights.shape == (9, 3) and np.allclose(weights.sum(1), 1.0)
    assert np.allclose(a.router_weights(), weights, atol=1e-9)
    assert isinstance(a.engine, SequentialEngine)
