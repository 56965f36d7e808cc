"""The suite of aggregation rules: what every rule keeps to, whatever it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pytest
import torch

from fedvlr_plugin.aggregation.robust import make_robust_rule
from fedvlr_plugin.aggregation.rule import Cohort, Rule, WeightedSum
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.config import Conditions, Robust, build_config
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.testing.toy import ALL_USERS, make_toy, make_uploads, toy_spec

Weighting = Literal["samples", "equal"]


class RuleTests:
    """Inherit it as `class TestMine(RuleTests)` and set `rule`.

    Class attributes:
        rule: name under which the rule is registered.
        settings: further fields of `Robust`, e.g. `{"params": {"power": 2.0}}`.
    """

    rule: ClassVar[str]
    settings: ClassVar[Mapping[str, object]] = {}

    def robust(self) -> Robust:
        """The condition that names the rule."""
        return build_config(Robust, {"rule": self.rule, **self.settings})

    @staticmethod
    def total(rule: Rule, uploads: ClientUploads, weighting: Weighting = "samples", blocks: int = 1) -> torch.Tensor:
        """Run one round of a rule and join its sum to one vector."""
        shape, n_clients = uploads.shape, len(uploads.clients)
        cohort = Cohort(1, uploads.clients, uploads.sizes, 50, weighting)
        rule.begin(cohort, shape, uploads.rows.dtype, torch.device("cpu"))
        for block in range(blocks):
            rule.take(uploads.only(torch.arange(n_clients) % blocks == block))
        summed = rule.total()
        assert summed is not None
        rows, layers = shape.flatten(summed)
        return torch.cat([rows.reshape(-1), layers])

    @pytest.mark.parametrize("weighting", ["samples", "equal"])
    def test_equal_uploads_give_the_weighted_sum(self, weighting: Weighting) -> None:
        uploads = make_uploads(touched=1.0, same=True)
        got = self.total(make_robust_rule(self.robust()), uploads, weighting)
        assert torch.allclose(got, self.total(WeightedSum(), uploads, weighting), atol=1e-12, rtol=0)

    def test_the_sum_is_finite_and_blocks_change_nothing(self) -> None:
        uploads = make_uploads()
        whole = self.total(make_robust_rule(self.robust()), uploads)
        parts = self.total(make_robust_rule(self.robust()), uploads, blocks=3)
        assert bool(torch.isfinite(whole).all())
        assert torch.allclose(whole, parts, atol=1e-12, rtol=0)

    def test_a_round_forgets_the_round_before(self) -> None:
        rule = make_robust_rule(self.robust())
        first, second = make_uploads(seed=1), make_uploads(seed=2)
        self.total(rule, first)
        assert torch.equal(self.total(rule, second), self.total(make_robust_rule(self.robust()), second))

    def test_without_uploads_the_round_is_skipped(self) -> None:
        rule, uploads = make_robust_rule(self.robust()), make_uploads()
        cohort = Cohort(1, uploads.clients, uploads.sizes, 50, "samples")
        rule.begin(cohort, uploads.shape, uploads.rows.dtype, torch.device("cpu"))
        assert rule.total() is None

    def test_its_state_goes_into_a_checkpoint_and_back(self) -> None:
        rule, restored = make_robust_rule(self.robust()), make_robust_rule(self.robust())
        self.total(rule, make_uploads(seed=1))
        restored.load_state(rule.state())
        later = make_uploads(seed=2)
        assert torch.equal(self.total(rule, later), self.total(restored, later))
        assert all(isinstance(value, float) for value in rule.counts().values())

    def test_a_run_names_it_and_trains(self) -> None:
        spec = toy_spec().model_copy(update={"conditions": Conditions(robust=self.robust())})
        federation = Federation(spec, "FedAvg", "none", make_toy())
        before = federation.score(ALL_USERS)
        federation.round(1)
        after = federation.score(ALL_USERS)
        assert bool(torch.isfinite(after).all()) and not torch.equal(before, after)
