"""The conformance suite of backbones: both engines, every fusion, on one contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from fedvlr_plugin.backbones.base import BACKBONES, Backbone
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.engines.batched import BatchedEngine
from fedvlr_plugin.engines.sequential import SequentialEngine
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.fusion.views import Fusion
from fedvlr_plugin.testing.toy import ALL_USERS, SIZES, assert_same, make_toy, toy_federation, train

EngineName = Literal["batched", "sequential"]
FUSIONS: tuple[Fusion, ...] = ("none", "mlp", "vbpr", "blfm")


class BackboneTests:
    """Inherit it as `class TestMine(BackboneTests)` and set `backbone`.

    Every test runs for every fusion that the backbone supports, in float64 on nine unequal clients. The sequential
    engine, plain autograd, is the reference: 1e-9 apart is a failure.

    Class attributes:
        backbone: name under which the backbone is registered.
        changes: settings of all runs, fields of `TrainingConfig`, `ModelConfig` or `Protocol`; e.g. `params`.
    """

    backbone: ClassVar[str]
    changes: ClassVar[Mapping[str, object]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test that takes `fusion` with every fusion of the backbone."""
        if "fusion" in metafunc.fixturenames:
            supported = self.kind().fusions
            metafunc.parametrize("fusion", [fusion for fusion in FUSIONS if fusion in supported])

    @classmethod
    def kind(cls) -> type[Backbone]:
        """Look the backbone's class up."""
        return BACKBONES.get(cls.backbone)

    def build(
        self,
        fusion: Fusion,
        engine: EngineName = "batched",
        data: PreparedData | None = None,
        block: int | None = None,
        **changes: object,
    ) -> Federation:
        """Build a federation of the backbone, as `toy_federation` does; `changes` go over the class's."""
        settings: dict[str, object] = {**self.changes, **changes}
        return toy_federation(self.backbone, fusion, engine, data, block, settings)

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert BACKBONES.canonical(self.backbone) == self.kind().name
        assert issubclass(self.kind(), Backbone)

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    @pytest.mark.parametrize("compiled", [True, False])
    def test_engines_agree(
        self, fusion: Fusion, optimizer: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Several mini-batches per client, partial participation, three rounds, compiled loops and tensor operations."""
        if not compiled:
            monkeypatch.setattr("fedvlr_plugin.engines.compiled.available._available", lambda: False)
        slow = self.build(fusion, "sequential", client_optimizer=optimizer)
        fast = self.build(fusion, block=3, client_optimizer=optimizer)
        assert int(slow.problem.sampler.steps_per_epoch().max()) > 2
        assert_same(slow, fast, train(slow), train(fast))

    def test_engines_agree_under_the_released_protocol(self, fusion: Fusion) -> None:
        def released(engine: EngineName) -> Federation:
            return self.build(
                fusion, engine, name="as_released", keep_private_state=False, negative_pool="train_items", negatives=1
            )

        slow, fast = released("sequential"), released("batched")
        assert_same(slow, fast, train(slow), train(fast))

    def test_block_size_and_threads_change_nothing(self, fusion: Fusion) -> None:
        single, whole = self.build(fusion, block=1), self.build(fusion, block=100)
        first = train(single)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1 if threads > 1 else 2)
            second = train(whole)
            assert_same(single, whole, first, second)
        finally:
            torch.set_num_threads(threads)

    def test_the_same_run_twice_is_bit_identical(self, fusion: Fusion) -> None:
        one, other = self.build(fusion), self.build(fusion)
        train(one), train(other)
        assert torch.equal(one.score(ALL_USERS), other.score(ALL_USERS))

    def test_no_global_random_numbers_are_drawn(self, fusion: Fusion) -> None:
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002 (reads it only)
        train(self.build(fusion), 1)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)  # noqa: NPY002

    def test_the_order_of_clients_changes_nothing(self, fusion: Fusion) -> None:
        one, other = self.build(fusion, "sequential"), self.build(fusion, "sequential")
        broadcast = one.server.broadcast()
        cohort = torch.tensor([1, 4, 7, 8])
        weights = one.problem.client_weights(cohort)
        uplink = one.engine.local_round(broadcast, cohort, weights, 1)
        reversed_uplink = other.engine.local_round(broadcast, cohort.flip(0), weights.flip(0), 1)
        for name, value in uplink.sums.items():
            assert torch.allclose(value, reversed_uplink.sums[name], atol=1e-12, rtol=0)

    def test_the_pull_back_equals_autograd_through_the_whole_model(self, fusion: Fusion) -> None:
        """Client by client and step by step, the loss as a function of the server's own weights."""
        federation = self.build(fusion, "sequential", participation=1.0)
        weights = federation.problem.client_weights(ALL_USERS)
        uplink = federation.engine.local_round(federation.server.broadcast(), ALL_USERS, weights, 1)
        shared = list(federation.server.model.parameters())
        graph = federation.server.model().named()
        reached = [name for name in uplink.sums if graph[name].requires_grad]
        pulled_back = torch.autograd.grad(
            [graph[name] for name in reached],
            shared,
            [uplink.sums[name] for name in reached],
            allow_unused=True,
            materialize_grads=True,
        )
        expected = self._whole_gradient(self.build(fusion, "sequential", participation=1.0))
        for got, want in zip(pulled_back, expected, strict=True):
            assert torch.allclose(got, want, atol=1e-11, rtol=0)

    def _whole_gradient(self, federation: Federation) -> list[torch.Tensor]:
        """The weighted gradient of all clients' losses by the server's weights, by autograd alone."""
        engine, problem = federation.engine, federation.problem
        assert isinstance(engine, SequentialEngine)
        parameters = list(federation.server.model.parameters())
        expected = [torch.zeros_like(parameter) for parameter in parameters]
        alphas = problem.client_weights(ALL_USERS)
        for user in ALL_USERS.tolist():
            slot = problem.histories.slot_of[user : user + 1]
            if int(problem.sampler.samples_per_epoch()[slot]) == 0:
                continue
            client, block = engine._start(user), problem.sampler.block(slot)
            for epoch in range(2):
                for step in block.epoch(1, epoch):
                    private = client.dense() + ([] if client.own is None else [client.own])
                    loss = engine.training.loss(client, federation.server.model(), block.history_items, step, 1)
                    grads = torch.autograd.grad(
                        loss, [*private, *parameters], allow_unused=True, materialize_grads=True
                    )
                    for leaf, grad in zip(private, grads, strict=False):
                        leaf.grad = grad
                    for total, grad in zip(expected, grads[len(private) :], strict=True):
                        total += alphas[user] * grad
                    for optimizer in client.optimizers:
                        optimizer.step()
                    if client.own is not None:
                        engine.training.step_own(client, torch.unique(step.items))
        return expected

    def test_uploads_hold_nothing_private(self, fusion: Fusion) -> None:
        """By name: only what was broadcast goes up. By value: no private number of any client occurs in it."""
        federation = self.build(fusion, participation=1.0)
        uplink = train(federation)
        engine = self._batched(federation)
        assert set(uplink.sums) == set(federation.server.broadcast().named())
        uploaded = torch.cat([value.flatten() for value in uplink.sums.values()])
        numbers = set(uploaded[uploaded != 0].tolist())
        trained = engine.store.steps["head"] > 0
        private = [values[trained].flatten() for values in engine.store.values.values()]
        private += [moment[trained].flatten() for pair in engine.store.moments.values() for moment in pair]
        if engine.own is not None:
            private.append(engine.own.dense(torch.arange(len(SIZES))).flatten())
        kept = torch.cat(private)
        assert numbers.isdisjoint(kept[kept != 0].tolist())

    def test_private_state_survives_rounds_and_is_what_evaluation_uses(self, fusion: Fusion) -> None:
        federation = self.build(fusion, participation=1.0)
        federation.round(1)
        engine = self._batched(federation)
        store = engine.store
        trained = store.steps["head"] > 0
        assert trained.sum() == len(SIZES) - 1
        before = {name: values.clone() for name, values in store.values.items()}
        for name, values in before.items():
            assert not torch.allclose(values[trained], store.initial[name].expand_as(values[trained]))
            assert torch.equal(values[~trained][0], store.initial[name])
        scores = federation.score(ALL_USERS)
        store.values["head"] += 0.5
        assert not torch.allclose(scores, federation.score(ALL_USERS))
        store.values["head"].copy_(before["head"])
        assert torch.equal(scores, federation.score(ALL_USERS))
        if engine.own is not None:
            state = engine.state(moments=False)
            assert state["own.values"].any()
            engine.load({**state, "own.values": torch.zeros_like(state["own.values"])})
            assert not torch.allclose(scores, federation.score(ALL_USERS))

    def test_a_client_outside_the_cohort_is_frozen(self, fusion: Fusion) -> None:
        federation = self.build(fusion)
        store = self._batched(federation).store
        cohort, weights = torch.tensor([2, 8]), torch.tensor([0.3, 0.7], dtype=torch.float64)
        federation.engine.local_round(federation.server.broadcast(), cohort, weights, 1)
        others = federation.problem.histories.slot_of[torch.tensor([1, 3, 4, 5, 6, 7])]
        for name, values in store.values.items():
            assert torch.equal(values[others], store.initial[name].expand(len(others), -1))
            assert all(not moment[others].any() for moment in store.moments[name])

    @pytest.mark.parametrize("modalities", [(), ("text",), ("vision", "text", "audio")])
    def test_any_number_of_modalities(self, fusion: Fusion, modalities: tuple[str, ...]) -> None:
        if fusion == "vbpr" and not modalities:
            pytest.skip("the naive VBPR fusion needs content")
        slow = self.build(fusion, "sequential", data=make_toy(modalities))
        fast = self.build(fusion, data=make_toy(modalities))
        assert_same(slow, fast, train(slow, 2), train(fast, 2))

    @pytest.mark.parametrize("engine", ["batched", "sequential"])
    def test_a_copy_brings_a_round_back(self, fusion: Fusion, engine: EngineName) -> None:
        federation = self.build(fusion, engine, participation=1.0)
        train(federation, 2)
        best, scores = federation.state(moments=False), federation.score(ALL_USERS)
        federation.round(3)
        assert not torch.equal(scores, federation.score(ALL_USERS))
        federation.load(best, moments=False)
        assert torch.equal(scores, federation.score(ALL_USERS))

    @staticmethod
    def _batched(federation: Federation) -> BatchedEngine:
        assert isinstance(federation.engine, BatchedEngine)
        return federation.engine
