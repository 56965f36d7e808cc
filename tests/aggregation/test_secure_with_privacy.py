"""Privacy over the real secure sum, in whole rounds: clipped, added in secret, noise on the sum."""

import pytest
import torch
from helpers.federation_toy import build

from fedvlr_plugin.config import Conditions, Privacy, Secure

pytest.importorskip("dp_accounting")


def federation(make_spec, privacy, secure, **changes):
    spec = make_spec("FCF", participation=1.0, **changes)
    spec = spec.model_copy(update={"conditions": Conditions(privacy=privacy, secure=secure)})
    return build(lambda *a, **k: spec, "FCF", "blfm")


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_the_secure_sum_under_privacy_is_the_plain_one_up_to_its_grid(make_spec, noise):
    privacy = Privacy(clip=0.05, noise_multiplier=noise)
    plain, secure = (federation(make_spec, privacy, s) for s in (None, Secure(bound=0.1)))
    for number in (1, 2):
        first, second = plain.round(number), secure.round(number)
        assert first.accounts["clip"] == second.accounts["clip"] == 0.05
    for name, value in plain.server.snapshot().items():
        close = secure.server.snapshot()[name]
        assert torch.allclose(value, close, atol=1e-4, rtol=0), name
    assert any(not torch.equal(v, secure.server.snapshot()[n]) for n, v in plain.server.snapshot().items())


def test_a_secure_sum_that_is_given_up_skips_the_round_but_is_paid_for(make_spec):
    privacy = Privacy(clip=0.05, noise_multiplier=1.5)
    lost = federation(make_spec, privacy, Secure(bound=0.1, threshold=1.0, lost_before=0.5))
    before = lost.server.snapshot()
    first = lost.round(1).accounts
    assert all(torch.equal(before[n], v) for n, v in lost.server.snapshot().items())
    second = lost.round(2).accounts
    assert second["epsilon"] > first["epsilon"] > 0 and second["given_up"] == 1
