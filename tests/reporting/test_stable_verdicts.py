"""The stored tables say the same whatever the random numbers: 50 generators, every family of comparisons.

Each generator is a test of its own, of some seconds; the families are collected once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedvlr_plugin.evaluation import randomization
from fedvlr_plugin.evaluation.randomization import Randomization, exact_p, sign_flip_tests
from fedvlr_plugin.evaluation.significance import ALPHA, Interval, holm
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting import comparisons
from fedvlr_plugin.reporting.claims import findings
from fedvlr_plugin.reporting.stored_runs import stored_profiles, stored_table
from fedvlr_plugin.reporting.table4 import lines

RESULTS = Path(__file__).parents[2] / "results" / "published"
GENERATORS = 50
Family = tuple[list[np.ndarray], list[float | None]]


@pytest.fixture(scope="module")
def families() -> list[Family]:
    """The differences, and the exact p where there is one, of every family that tables and claims hand to the test.

    Families without a single comparison that is drawn are left out: no generator is asked there.
    """
    seen: list[list[np.ndarray]] = []

    def note(differences: Sequence[np.ndarray], rng: np.random.Generator) -> list[Randomization]:
        seen.append(list(differences))
        return [Randomization(1.0, 0) for _ in differences]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparisons, "sign_flip_tests", note)
        patch.setattr(lines, "sign_flip_tests", note)
        patch.setattr(comparisons, "mean_interval", lambda values, rng: Interval(0.0, 0.0))  # not asked for here
        store = ResultsStore(RESULTS)
        for profile, protocol in stored_profiles(store):
            findings(store, stored_table(store, profile, protocol))
        noisy = store.below("table4")
        for profile, protocol in stored_profiles(noisy):
            lines.stored_lines(noisy, profile, protocol)
    assert sum(map(len, seen)) > 200
    with_exact = [(family, [exact_p(difference) for difference in family]) for family in seen]
    return [(family, exact) for family, exact in with_exact if None in exact]


def decisions(families: Sequence[Family], seed: int) -> list[list[bool]]:
    """Holm's decision on every comparison with the sign patterns of one generator."""
    decided = []
    for family, exact in families:
        known = {id(difference): p for difference, p in zip(family, exact, strict=True)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(randomization, "exact_p", lambda difference, known=known: known[id(difference)])
            tests = sign_flip_tests(family, np.random.default_rng(seed))
        decided.append([p < ALPHA for p in holm([test.p for test in tests])])
    return decided


@pytest.fixture(scope="module")
def first(families: list[Family]) -> list[list[bool]]:
    """What the first generator decides."""
    return decisions(families, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, GENERATORS))
def test_every_generator_decides_as_the_first(families: list[Family], first: list[list[bool]], seed: int) -> None:
    assert decisions(families, seed) == first
