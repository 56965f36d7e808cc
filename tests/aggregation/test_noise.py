"""Noise: the stated scale, nothing lost without noise, history carried over."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.private_uploads import SHAPE, USERS, cohort, flat, spec, total, uploads

from fedvlr_plugin.aggregation.clipping import adaptive_settings, clip, next_bound
from fedvlr_plugin.aggregation.factory import make_rule
from fedvlr_plugin.aggregation.noise import GaussianRule, make_private_rule
from fedvlr_plugin.aggregation.rule import Rule, WeightedSum
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, guarantee_of

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


def test_no_noise_and_a_huge_bound_is_the_plain_sum_with_equal_weights_bit_for_bit() -> None:
    private = total(make_rule(spec(noise_multiplier=0.0, clip=1e9), USERS), [uploads()])
    plain = total(WeightedSum(), [uploads()])
    assert private.keys() == plain.keys() and all(torch.equal(private[name], plain[name]) for name in plain)
    by_size = total(make_rule(spec(noise_multiplier=0.0, clip=1e9), USERS), [uploads()], cohort(weighting="samples"))
    assert all(torch.equal(by_size[name], plain[name]) for name in plain), "weights do not follow histories"


@pytest.mark.parametrize("z", [0.5, 3.0])
def test_the_noise_has_the_scale_it_says_on_every_entry(z: float) -> None:
    """On the sum, that is times q U: z C; and on rows that nobody touched as on all others."""
    clean = total(make_private_rule(spec(noise_multiplier=0.0, clip=0.7), USERS), [uploads()])
    noises = []
    for round in range(1, 41):
        rule = make_private_rule(spec(noise_multiplier=z, clip=0.7), USERS)
        noisy = total(rule, [uploads()], cohort(round=round))
        noises.append((flat(noisy) - flat(clean)) * USERS)
    noise = torch.stack(noises)
    n = noise.numel()
    assert noise.shape[1] == SHAPE.size and (noise != 0).all()
    assert float(noise.std()) == pytest.approx(z * 0.7, rel=5 / math.sqrt(2 * n))
    assert abs(float(noise.mean())) < 5 * z * 0.7 / math.sqrt(n)
    by_entry = noise.std(dim=0)
    assert by_entry.min() > 0.5 * z * 0.7 and by_entry.max() < 1.6 * z * 0.7, "no entry is left out"
    correlation = torch.corrcoef(noise)
    assert (correlation - torch.eye(len(noise))).abs().max() < 6 / math.sqrt(SHAPE.size), "fresh in every round"


def test_the_noise_depends_on_seed_and_round_alone() -> None:
    first = total(make_private_rule(spec(noise_multiplier=1.0), USERS), [uploads()])
    again = total(make_private_rule(spec(noise_multiplier=1.0), USERS), [uploads()])
    assert torch.equal(flat(first), flat(again))
    for other in (spec(noise_multiplier=1.0, seed=4), spec(noise_multiplier=1.0)):
        who = cohort(round=1 if other.seed == 4 else 2)
        assert not torch.equal(flat(first), flat(total(make_private_rule(other, USERS), [uploads()], who)))


def test_blocks_change_nothing_but_rounding() -> None:
    whole = uploads()
    first = torch.zeros(USERS, dtype=torch.bool)
    first[:8] = True
    rule, parts = (
        make_private_rule(spec(noise_multiplier=1.0, clip=2.0), USERS),
        [whole.only(first), whole.only(~first)],
    )
    torch.testing.assert_close(
        total(rule, parts), total(make_private_rule(spec(noise_multiplier=1.0, clip=2.0), USERS), [whole])
    )


def test_the_denominator_is_fixed_and_an_empty_cohort_is_noise_alone() -> None:
    one = uploads(clients=1, scale=0.01)
    rule = make_private_rule(spec(noise_multiplier=0.0, participation=0.25), USERS)
    summed = total(rule, [one], cohort(clients=1))
    assert torch.allclose(flat(summed) * 5.0, flat(one.dense(0)))
    rule = make_private_rule(spec(noise_multiplier=2.0, participation=0.25), USERS)
    empty = total(rule, [], cohort(clients=0))
    assert (flat(empty) != 0).all() and float(flat(empty).std()) == pytest.approx(2.0 / 5.0, rel=0.15)


def test_counts_say_what_was_clipped_and_spent() -> None:
    rule = make_private_rule(spec(noise_multiplier=4.0, clip=1e-3, participation=0.1, rounds=100, delta=5e-4), 1000)
    for round in range(1, 101):
        total(rule, [uploads(clients=5)], cohort(clients=5, round=round, n_users=1000))
    counts = rule.counts()
    assert counts["clipped"] == 1.0 and counts["clip"] == 1e-3 and round_to(counts["epsilon"]) == 0.68
    none = make_private_rule(spec(noise_multiplier=0.0, clip=1e9), USERS)
    total(none, [uploads()])
    assert none.counts() == {"clipped": 0.0, "clip": 1e9}, "no epsilon where none is guaranteed"


def round_to(value: float) -> float:
    return round(value, 2)


def test_history_goes_through_a_checkpoint() -> None:
    settings = {"noise_multiplier": 1.0, "adaptive_quantile": 0.5, "clip": 2.0}
    straight, rule = (make_private_rule(spec(**settings), USERS) for _ in range(2))
    for round in (1, 2):
        total(rule, [uploads(seed=round)], cohort(round=round))
    resumed = make_private_rule(spec(**settings), USERS)
    resumed.load_state({name: value.clone() for name, value in rule.state().items()})
    for round in (1, 2, 3, 4):
        expected = total(straight, [uploads(seed=round)], cohort(round=round))
        if round > 2:
            assert torch.equal(flat(expected), flat(total(resumed, [uploads(seed=round)], cohort(round=round))))
    assert resumed.counts() == straight.counts() and resumed.bound != 2.0
    assert all(torch.equal(value, straight.state()[name]) for name, value in resumed.state().items())


@pytest.mark.parametrize(
    "other",
    [
        {"noise_multiplier": 2.0},
        {"noise_multiplier": 1.0, "clip": 0.5},
        {"noise_multiplier": 1.0, "adaptive_quantile": 0.5},
        {"noise_multiplier": 1.0, "participation": 0.5},
        {"noise_multiplier": 1.0, "seed": 9},
        {"mechanism": "paper_noise", "noise_scale": 0.1},
    ],
)
def test_another_mechanism_is_refused(other: dict[str, object]) -> None:
    rule = make_private_rule(spec(noise_multiplier=1.0), USERS)
    total(rule, [uploads()])
    with pytest.raises(ConfigError, match="another privacy mechanism"):
        make_private_rule(spec(**other), USERS).load_state(rule.state())
    with pytest.raises(ConfigError, match="another privacy mechanism"):
        rule.load_state({})


def test_the_paper_s_noise_has_its_scale_and_the_backbone_s_weights() -> None:
    settings = {"mechanism": "paper_noise", "noise_scale": 0.25}
    plain = total(WeightedSum(), [uploads(scale=9.0)], cohort(weighting="samples"))
    noises = torch.stack(
        [
            flat(
                total(
                    make_private_rule(spec(**settings), USERS),
                    [uploads(scale=9.0)],
                    cohort(round=r, weighting="samples"),
                )
            )
            - flat(plain)
            for r in range(1, 31)
        ]
    )
    weights = torch.arange(1, USERS + 1).double() / torch.arange(1, USERS + 1).sum()
    expected = 0.25 * float(weights.square().sum().sqrt())
    assert float(noises.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * noises.numel())) and (noises != 0).all()
    assert total(make_private_rule(spec(**settings), USERS), [], cohort(clients=0)) is None


def test_an_adaptive_bound_finds_its_quantile_and_pays_for_it() -> None:
    norms = uploads(clients=200).times(torch.linspace(0.1, 3.0, 200)).norms()
    quantile, z_sum = adaptive_settings(0.8, 1.0, 200.0)
    assert z_sum**-2 + (2 * quantile.count_noise) ** -2 == pytest.approx(1.0), "the two parts are one mechanism of z"
    assert z_sum > 1.0 and adaptive_settings(0.8, 50.0, 20.0)[1] == pytest.approx(50.0 * math.sqrt(4 / 3))
    bound = 0.01
    source = torch.Generator().manual_seed(0)
    for _ in range(300):
        within = int((norms <= bound).sum())
        bound = next_bound(bound, quantile, within, 200 - within, 200.0, source)
    assert float((norms <= bound).double().mean()) == pytest.approx(0.8, abs=0.06)


def test_an_adaptive_rule_puts_more_noise_on_the_sum() -> None:
    rule = make_private_rule(spec(noise_multiplier=4.0, adaptive_quantile=0.5, clip=1.0), USERS)
    assert isinstance(rule, GaussianRule) and rule.z_sum == pytest.approx(4.0 * math.sqrt(4 / 3))
    noises = []
    for round in range(1, 31):
        bound = rule.bound
        noises.append(flat(total(rule, [], cohort(clients=0, round=round))) * USERS / bound)
        assert rule.bound != bound
    assert float(torch.stack(noises).std()) == pytest.approx(rule.z_sum, rel=0.03), "not 4, which is 13 % less"


def test_a_rule_needs_a_multiplier() -> None:
    nothing = PrivacyGuarantee(
        mechanism="gaussian", epsilon=None, delta=None, noise_multiplier=None, clip=1.0, adaptive_quantile=None,
        noise_scale=None, sampling=1.0, rounds=1,
    )  # fmt: skip
    wanted = spec(noise_multiplier=1.0).conditions.privacy
    assert wanted is not None
    with pytest.raises(ConfigError, match="noise multiplier"):
        GaussianRule(wanted, nothing, 0, USERS, WeightedSum())
    with pytest.raises(ConfigError, match="asks for no privacy"):
        make_private_rule(RunSpec(dataset="ku", row="FCF"), USERS)


class Inner(WeightedSum):
    """Stands in for secure aggregation: rounds to a grid, can give a round up, has a state of its own."""

    def __init__(self) -> None:
        self.given_up, self.norms, self.rounds = False, [], 0.0

    def take(self, uploads: ClientUploads) -> None:
        self.norms.append(uploads.norms())
        super().take(uploads)

    def total(self) -> dict[str, torch.Tensor] | None:
        self.rounds += 1.0
        whole = super().total()
        return None if self.given_up or whole is None else {n: (v * 2**16).round() / 2**16 for n, v in whole.items()}

    def counts(self) -> dict[str, float]:
        return {"lost": 2.0}

    def state(self) -> dict[str, torch.Tensor]:
        return {"rounds": torch.tensor([self.rounds])}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.rounds = float(state["rounds"][0])


def composed(inner: Rule, **privacy: object) -> GaussianRule:
    made = spec(participation=0.5, **privacy)
    guarantee, wanted = guarantee_of(made, USERS), made.conditions.privacy
    assert guarantee is not None and wanted is not None
    return GaussianRule(wanted, guarantee, made.seed, USERS, inner)


def test_clipping_comes_before_the_inner_sum_and_noise_after_it() -> None:
    inner = Inner()
    clean = total(composed(inner, noise_multiplier=0.0, clip=0.3), [uploads()])
    assert (torch.cat(inner.norms) <= 0.3).all(), "secure aggregation is given clipped uploads"
    grid = flat(clean) * 2**16
    assert torch.equal(grid, grid.round()) and float(grid.abs().max()) > 100
    noisy = total(composed(Inner(), noise_multiplier=2.0, clip=0.3), [uploads()])
    noise = (flat(noisy) - flat(clean)) * 0.5 * USERS
    assert float(noise.std()) == pytest.approx(0.6, rel=0.15), "what is added is noise of z C and nothing else"
    by_hand = total(WeightedSum(), [clip(uploads(), 0.3).uploads], cohort(clients=USERS // 2))
    assert torch.allclose(flat(clean), flat(by_hand), atol=2**-16), "weights are 1 / (q U), whoever answers"


def test_a_sum_that_is_given_up_skips_the_round_and_is_paid_for() -> None:
    inner = Inner()
    rule = composed(inner, noise_multiplier=1.0)
    assert total(rule, [uploads()]) is not None
    inner.given_up = True
    assert total(rule, [uploads()], cohort(round=2)) is None
    assert rule.rounds == 2 and rule.counts()["lost"] == 2.0 and rule.counts()["epsilon"] > 0
    resumed = composed(Inner(), noise_multiplier=1.0)
    resumed.load_state(rule.state())
    assert resumed.rounds == 2 and resumed.inner.rounds == 2.0
