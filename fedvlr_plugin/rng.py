"""Counter-based random numbers: every draw is a function of (seed, stream, round, epoch, client, index).

There is no sequential state, so the draws do not depend on the order in which clients are processed, on the block
size, the number of threads or processes, the device, or on where a run was resumed. The mixing function is
the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), computed on int64 tensors, whose products wrap
like unsigned ones. A uniform integer below m is `(x * m) >> 32` for 32 random bits x; its bias is below m / 2**32.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch

Unsigned = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MUL_1 = 0xBF58476D1CE4E5B9
MUL_2 = 0x94D049BB133111EB
_UPPER = 0xFFFFFFFF00000000
PIECE = 16_384


class Stream(IntEnum):
    """The purpose of a draw; the numbers of two streams are independent."""

    NEGATIVES = 1
    SHUFFLE = 2
    COHORT = 3
    SERVER_INIT = 4
    CLIENT_INIT = 5
    NOISE = 6
    CLIP_COUNT = 7
    FAULTS = 9
    ATTACK = 10
    MASK = 8
    AUDIT = 11
    CONTROL = 20


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * MUL_1) & _MASK
    z = ((z ^ (z >> 27)) * MUL_2) & _MASK
    return z ^ (z >> 31)


def _mix(z: torch.Tensor) -> torch.Tensor:
    """Apply the finaliser to an int64 tensor in place."""
    for shift, factor in ((30, MUL_1), (27, MUL_2)):
        z ^= (z >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        z *= _signed(factor)
    z ^= (z >> 31).bitwise_and_((1 << 33) - 1)
    return z


def derive(seed: int, stream: Stream, *counters: int) -> int:
    """Compute a key from counters.

    Args:
        seed: of the run.
        stream: purpose of the draw.
        counters: e.g. round and epoch, at least 0.

    Returns:
        An integer in [0, 2**64).
    """
    key = _mix_int(seed * GOLDEN + int(stream))
    for counter in counters:
        key = _mix_int(key + (counter + 1) * GOLDEN)
    return key


def client_keys(seed: int, stream: Stream, round: int, epoch: int, clients: torch.Tensor) -> torch.Tensor:
    """Compute a key for each client.

    Args:
        seed: of the run.
        stream: purpose of the draw.
        round: counted from 1.
        epoch: local epoch.
        clients: user ids `[n]` (not positions), int64.

    Returns:
        Keys `[n]`, int64.
    """
    return keys_of(derive(seed, stream, round, epoch), clients)


def keys_of(base: int, clients: torch.Tensor) -> torch.Tensor:
    """Compute `client_keys` from `base`, the key of all counters but the client, for user ids `[n]`."""
    return _mix((clients + 1) * _signed(GOLDEN) + _signed(base))


def bits32(keys: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Draw 32 random bits, as int64 in [0, 2**32), for each key and index; shapes broadcast."""
    return (_mix((index + 1) * _signed(GOLDEN) + keys) >> 32) & 0xFFFFFFFF


def below(keys: torch.Tensor, index: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """Draw uniform integers in [0, bound), with `bound` in 1..2**31 - 1; shapes broadcast."""
    return bits32(keys, index).mul_(bound) >> 32


def premix(index: torch.Tensor) -> torch.Tensor:
    """Compute the part of a draw that depends on the index only, for the functions `*_premixed`."""
    return (index + 1) * _signed(GOLDEN)


def below_premixed(
    keys: torch.Tensor, mixed: torch.Tensor, bound: torch.Tensor, base: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute `below(keys, index, bound) + base` in place in `keys`.

    Args:
        keys: int64 `[n]`, overwritten.
        mixed: `premix(index)` `[n]`.
        bound: in 1..2**31 - 1, `[n]`.
        base: added to the result, `[n]`; None adds nothing.
    """
    if keys.device.type != "cpu":
        _mix(keys.add_(mixed)).bitwise_right_shift_(32).bitwise_and_(0xFFFFFFFF).mul_(bound).bitwise_right_shift_(32)
        return keys if base is None else keys.add_(base)
    most, add = unsigned(bound), None if base is None else unsigned(base)
    for part, x, high in _nearly_mixed(keys, mixed):
        np.right_shift(x, np.uint64(63), out=high)  # only the upper half of x ^ (x >> 31) is needed
        x >>= np.uint64(32)
        x ^= high
        x *= most[part]
        x >>= np.uint64(32)
        if add is not None:
            x += add[part]
    return keys


def sort_keys_premixed(keys: torch.Tensor, mixed: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Compute `bits32(keys, index) << 32 | low` in place in `keys`.

    As unsigned numbers, the results sort by the random bits first and by `low` second.

    Args:
        keys: int64 `[n]`, overwritten.
        mixed: `premix(index)` `[n]`.
        low: in [0, 2**32), `[n]`.
    """
    if keys.device.type != "cpu":
        return _mix(keys.add_(mixed)).bitwise_and_(_signed(_UPPER)).bitwise_or_(low)
    below = unsigned(low)
    for part, x, high in _nearly_mixed(keys, mixed):
        np.right_shift(x, np.uint64(31), out=high)
        x ^= high
        x &= np.uint64(_UPPER)
        x |= below[part]
    return keys


def _nearly_mixed(keys: torch.Tensor, mixed: torch.Tensor) -> Iterator[tuple[slice, Unsigned, Unsigned]]:
    """Yield pieces of `keys + mixed` after all of the finaliser but its last shift, with a buffer of the same length.

    The pieces are computed in place, with numpy's unsigned shifts, and fit the cache: a third of the memory traffic.
    """
    z, add = unsigned(keys), unsigned(mixed)
    room = np.empty(min(len(z), PIECE), dtype=np.uint64)
    for begin in range(0, len(z), PIECE):
        part = slice(begin, begin + PIECE)
        x = z[part]
        high = room[: len(x)]
        x += add[part]
        for shift, factor in ((30, MUL_1), (27, MUL_2)):
            np.right_shift(x, np.uint64(shift), out=high)
            x ^= high
            x *= np.uint64(factor)
        yield part, x, high


def unsigned(values: torch.Tensor) -> Unsigned:
    """Return an unsigned view of the same 64-bit numbers, without a copy."""
    return values.numpy().view(np.uint64)


def generator(seed: int, stream: Stream, *counters: int) -> torch.Generator:
    """Create a CPU generator seeded from counters (see `derive`), for initial values."""
    return torch.Generator().manual_seed(_signed(derive(seed, stream, *counters)))


def chance(keys: torch.Tensor, probability: float, index: int = 0) -> torch.Tensor:
    """Draw true with a given probability (to 2**-32) for each key; the result is bool and has the keys' shape."""
    return bits32(keys, torch.full((1,), index, dtype=torch.int64, device=keys.device)) < int(probability * 2**32)


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up, for values of at least 0 (Python's `round` rounds halves to even)."""
    return int(value + 0.5)
