"""The guarantee follows from the specification alone."""

from __future__ import annotations

import pytest

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.privacy.accounting import epsilon_of, noise_for
from fedvlr_plugin.privacy.guarantee import format_epsilon, guarantee_of

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


def noisy(rounds: int = 20, **privacy: object) -> RunSpec:
    return RunSpec.model_validate(
        {"dataset": "ku", "row": "FCF", "training": {"rounds": rounds}, "conditions": {"privacy": privacy}}
    )


def test_a_guarantee_follows_from_the_specification() -> None:
    assert guarantee_of(RunSpec(dataset="ku", row="FCF"), 204) is None
    found = guarantee_of(noisy(epsilon=8.0), 204)
    assert found is not None and found.epsilon is not None
    assert 7.9 < found.epsilon <= 8.0 and found.delta == pytest.approx(1 / 2040) and found.delta < 1 / 204
    assert found.noise_multiplier == noise_for(8.0, 20, found.delta) and found.rounds == 20
    assert found.adjacency == "add or remove one user" and format_epsilon(found) == "8"
    given_z = guarantee_of(noisy(noise_multiplier=2.0, delta=1e-4), 204)
    assert given_z is not None and given_z.epsilon == epsilon_of(2.0, 20, 1e-4)
    for none in (noisy(mechanism="paper_noise", noise_scale=0.1), noisy(noise_multiplier=0.0)):
        found = guarantee_of(none, 204)
        assert found is not None and found.epsilon is None and found.delta is None and format_epsilon(found) == "∞"
