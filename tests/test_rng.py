"""Counter-based random numbers: known values, uniformity, and independence of order."""

import numpy as np
import torch
from scipy import stats

from fedvlr_plugin.federation.cohort import draw_cohort
from fedvlr_plugin.rng import (
    PIECE,
    Stream,
    _mix_int,
    below,
    below_premixed,
    bits32,
    client_keys,
    derive,
    premix,
    sort_keys_premixed,
)

GOLDEN = 0x9E3779B97F4A7C15


def test_the_mixing_function_is_splitmix64():
    """First outputs of the reference generator for seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state, got = 1234567, []
    for _ in expected:
        state = (state + GOLDEN) & ((1 << 64) - 1)
        got.append(_mix_int(state))
    assert got == expected


def test_tensor_and_integer_arithmetic_agree():
    users = torch.tensor([0, 1, 77, 10**9])
    keys = client_keys(3, Stream.NEGATIVES, 5, 2, users)
    for user, key in zip(users.tolist(), keys.tolist(), strict=True):
        assert key % (1 << 64) == _mix_int(derive(3, Stream.NEGATIVES, 5, 2) + (user + 1) * GOLDEN)


def test_draws_are_uniform_and_below_the_bound():
    keys = client_keys(0, Stream.NEGATIVES, 1, 0, torch.arange(50))[:, None]
    draws = below(keys, torch.arange(2000)[None], torch.tensor(37)).flatten().numpy()
    assert draws.min() == 0 and draws.max() == 36
    assert stats.chisquare(np.bincount(draws, minlength=37)).pvalue > 1e-3


def test_neighbouring_keys_are_uncorrelated():
    clients = torch.arange(4000)
    first = bits32(client_keys(0, Stream.NEGATIVES, 1, 0, clients), torch.tensor([0])).numpy()
    for other in (
        bits32(client_keys(0, Stream.NEGATIVES, 1, 0, clients), torch.tensor([1])),
        bits32(client_keys(0, Stream.NEGATIVES, 1, 1, clients), torch.tensor([0])),
        bits32(client_keys(0, Stream.NEGATIVES, 2, 0, clients), torch.tensor([0])),
        bits32(client_keys(1, Stream.NEGATIVES, 1, 0, clients), torch.tensor([0])),
        bits32(client_keys(0, Stream.SHUFFLE, 1, 0, clients), torch.tensor([0])),
        bits32(client_keys(0, Stream.NEGATIVES, 1, 0, clients + 1), torch.tensor([0])),
    ):
        assert stats.pearsonr(first, other.numpy()).pvalue > 1e-3


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    draw_cohort(0, 1, 100, 0.5)
    client_keys(0, Stream.NEGATIVES, 1, 0, torch.arange(5))
    assert torch.equal(before, torch.get_rng_state())


def test_draws_in_place_are_the_same_draws():
    n = 2 * PIECE + 17
    keys = client_keys(5, Stream.NEGATIVES, 1, 0, torch.arange(n))
    index, bound = torch.arange(n) % 91, 1 + torch.arange(n) % 5000
    expected = below(keys, index, bound)
    assert torch.equal(below_premixed(keys.clone(), premix(index), bound), expected)
    base = torch.arange(n) * 7
    assert torch.equal(below_premixed(keys.clone(), premix(index), bound, base), expected + base)
    packed = sort_keys_premixed(keys.clone(), premix(index), base)
    assert torch.equal((packed >> 32) & 0xFFFFFFFF, bits32(keys, index)) and torch.equal(packed & 0xFFFFFFFF, base)
