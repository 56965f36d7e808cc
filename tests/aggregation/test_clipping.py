"""A contribution is bounded, whatever a client holds, and nothing else changes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers.private_uploads import SHAPE, USERS, cohort, flat, spec, total, uploads
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedvlr_plugin.aggregation.clipping import clip
from fedvlr_plugin.aggregation.noise import make_private_rule

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


adversarial = st.one_of(
    st.sampled_from([0.0, 1e-45, -1e30, 3e38, -3e38, math.inf, -math.inf, math.nan]), st.floats(width=32)
)


@given(
    st.lists(adversarial, min_size=1, max_size=12),
    st.floats(1e-3, 1e6),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 1000),
)
@example([3e38], 0.25, torch.float32, 0)  # the factor is subnormal in float32
@settings(max_examples=150, deadline=None)
def test_a_contribution_is_bounded_whatever_a_client_holds(values: list[float], bound: float, dtype, seed: int) -> None:
    honest = uploads(clients=3, seed=seed, dtype=dtype)
    picks = torch.randint(0, 7 * SHAPE.row_width, (len(values),), generator=torch.Generator().manual_seed(seed))
    rows, layers = honest.rows.clone(), honest.layers.clone()
    rows[7:14].view(-1)[picks] = torch.tensor(values, dtype=dtype)
    layers[1, 0] = values[0]
    bad = dataclasses.replace(honest, rows=rows, layers=layers)
    norms = clip(bad, bound).uploads.norms()
    assert (norms <= bound).all() and torch.isfinite(norms).all()
    if dtype == torch.float32:
        rule = lambda: make_private_rule(spec(noise_multiplier=0.0, clip=bound), USERS)  # noqa: E731
        without = total(rule(), [bad.only(torch.tensor([True, False, True]))], cohort(clients=2))
        moved = (flat(total(rule(), [bad], cohort(clients=3))) - flat(without)).norm() * USERS
        assert float(moved) <= bound * (1 + 1e-5) + 1e-5 * USERS, "what the server sees moves by no more than C"


def test_a_little_over_the_bound_is_over() -> None:
    norms = uploads().norms()
    done = clip(uploads(), float(norms.min()) * (1 - 1e-6))
    assert done.over == USERS and (done.uploads.norms() <= norms.min() * (1 - 1e-6)).all()
    assert clip(uploads(), float(norms.max())).over == 0, "the bound itself is within"


def test_uploads_within_the_bound_are_untouched_and_others_keep_their_direction() -> None:
    mixed = uploads().times(torch.linspace(0.1, 4.0, USERS))
    bound = float(mixed.norms().median())
    done = clip(mixed, bound)
    small = mixed.norms() <= bound
    assert (done.within, done.over, done.refused) == (
        int(small.sum()),
        int((~small).sum()),
        0,
    ) and 0 < done.over < USERS
    assert torch.equal(done.uploads.rows[small[mixed.owner]], mixed.rows[small[mixed.owner]])
    assert torch.allclose(done.uploads.norms()[~small], torch.full((done.over,), bound, dtype=torch.float64), rtol=1e-6)
    for position in range(USERS):
        before, after = flat(mixed.dense(position)), flat(done.uploads.dense(position))
        assert float(before @ after) == pytest.approx(float(before.norm() * after.norm()), rel=1e-5)
