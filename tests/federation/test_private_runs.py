"""Privacy in whole runs: every backbone under noise, nothing changed without it, epsilon in the accounts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.aggregation.rule import WeightedSum
from fedvlr_plugin.aggregation.uploads import join_uploads
from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import ExecutionConfig, Faults, RunSpec
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.federation import simulation
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.privacy.guarantee import guarantee_of

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")

ALL = torch.arange(9)
ROWS = [row for name in BACKBONES for row in (name, f"{name}+ours") if "blfm" in BACKBONES.get(name).fusions]


def build(
    row: str, engine: str = "batched", participation: float = 1.0, rounds: int = 4, **privacy: object
) -> Federation:
    values = {
        "dataset": "toy",
        "row": row,
        "training": {"rounds": rounds, "participation": participation},
        "conditions": {"privacy": privacy} if privacy else {},
    }
    parsed = parse_row(row)
    assert parsed.backbone is not None and parsed.fusion is not None
    return Federation(
        RunSpec.model_validate(values), parsed.backbone, parsed.fusion, make_toy(), ExecutionConfig(engine=engine)
    )


def train(federation: Federation, rounds: int = 4):
    return [federation.round(number) for number in range(1, rounds + 1)]


def assert_equal(one: Federation, two: Federation) -> None:
    first, second = one.server.snapshot(), two.server.snapshot()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(one.score(ALL), two.score(ALL))


@pytest.mark.parametrize("row", ROWS)
def test_no_noise_and_a_huge_bound_is_plain_training_with_equal_weights_bit_for_bit(row: str, monkeypatch) -> None:
    """The plain side goes client by client too, through the plain rule, with the weights of FCF."""

    class Equal(WeightedSum):
        def begin(self, cohort, shape, dtype, device) -> None:
            object.__setattr__(cohort, "weighting", "equal")
            super().begin(cohort, shape, dtype, device)

    private = build(row, noise_multiplier=0.0, clip=1e9)
    train(private)
    monkeypatch.setattr(simulation, "make_rule", lambda spec, n_users: Equal())
    plain = build(row, noise_multiplier=0.0, clip=1e9)
    train(plain)
    assert_equal(private, plain)


def test_without_noise_the_engine_s_own_sum_is_met_but_for_rounding() -> None:
    private, plain = build("FCF+ours", noise_multiplier=0.0, clip=1e9), build("FCF+ours")
    train(private), train(plain)
    assert torch.allclose(private.score(ALL), plain.score(ALL), atol=1e-4)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_under_noise_and_says_what_it_spent(row: str) -> None:
    federation = build(row, epsilon=4.0, clip=0.1)
    uplinks = train(federation)
    guarantee = guarantee_of(federation.spec, 9)
    assert guarantee is not None and guarantee.epsilon is not None and guarantee.epsilon <= 4.0
    spent = [uplink.accounts["epsilon"] for uplink in uplinks]
    assert spent == sorted(spent) and spent[-1] == pytest.approx(guarantee.epsilon, rel=1e-6) and spent[0] < 2.5
    assert uplinks[0].accounts["clip"] == 0.1 and 0 <= uplinks[0].accounts["clipped"] <= 1
    again, other = build(row, epsilon=4.0, clip=0.1), build(row, noise_multiplier=0.0, clip=0.1)
    train(again), train(other)
    assert_equal(federation, again)
    assert not torch.equal(federation.score(ALL), other.score(ALL)) and bool(
        torch.isfinite(federation.score(ALL)).all()
    )


def test_engines_agree_under_noise() -> None:
    one, two = (
        build("FedRAP+ours", "sequential", noise_multiplier=1.0, clip=0.05),
        build("FedRAP+ours", noise_multiplier=1.0, clip=0.05),
    )
    train(one), train(two)
    assert torch.allclose(one.score(ALL), two.score(ALL), atol=1e-4)


def test_cohorts_are_poisson_and_an_empty_one_is_noise() -> None:
    federation = build("FCF", participation=0.15, rounds=60, noise_multiplier=1.0, clip=0.1)
    sizes = []
    for number in range(1, 61):
        before = federation.server.snapshot()
        sizes.append(federation.round(number).clients)
        changed = [not torch.equal(before[name], value) for name, value in federation.server.snapshot().items()]
        assert all(changed), "the server steps in every round, or it would tell that nobody was there"
    assert len(set(sizes)) > 2 and 0 in sizes and np.mean(sizes) < 3.0


def test_the_paper_s_noise_runs_and_guarantees_nothing() -> None:
    federation = build("FedAvg+ours", mechanism="paper_noise", noise_scale=0.01)
    uplinks = train(federation)
    assert "epsilon" not in uplinks[-1].accounts
    plain = build("FedAvg+ours")
    train(plain)
    assert not torch.equal(federation.score(ALL), plain.score(ALL))


def test_clients_that_drop_out_change_neither_the_denominator_nor_the_price() -> None:
    """The guarantee holds for a client that is called, whether it answers or not; a round that nobody answers is noise."""

    def train_with(dropout: float, **privacy: object):
        federation = build("FCF", rounds=4, **privacy)
        faults = Faults(dropout=dropout)
        spec = federation.spec
        federation.spec = spec.model_copy(update={"conditions": spec.conditions.model_copy(update={"faults": faults})})
        return federation, train(federation)

    _, full = train_with(0.0, noise_multiplier=1.0, clip=1.0)
    nobody, none = train_with(1.0, noise_multiplier=1.0, clip=1.0)
    assert full[-1].accounts["epsilon"] == none[-1].accounts["epsilon"] > 0 and none[-1].clients == 0
    start = build("FCF", noise_multiplier=1.0, clip=1.0).server.snapshot()
    assert any(not torch.equal(value, start[name]) for name, value in nobody.server.snapshot().items())

    federation, _ = train_with(0.5, noise_multiplier=0.0, clip=1e9)
    seen, rule = [], federation.rule
    assert rule is not None
    take = rule.take
    rule.take = lambda uploads: (seen.append(uploads), take(uploads))[1]
    total = rule.total
    totals: list[dict[str, torch.Tensor]] = []
    rule.total = lambda: totals.append(total() or {}) or totals[-1]
    federation.round(5)
    uploads = join_uploads(seen)
    assert 0 < len(uploads.clients) < 8
    wanted = sum(uploads.dense(place)["views"] for place in range(len(uploads.clients))) / 9
    torch.testing.assert_close(totals[0]["views"], wanted)
