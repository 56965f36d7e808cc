"""Counter-based random numbers: every draw is a function of (seed, stream, round, epoch, client, index).

Nothing is consumed in sequence, so the draws do not depend on the order in which clients are processed, on the
block size, the number of threads or processes, the device, or on where a run was resumed. The mixing function is
the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), computed on int64 tensors, whose products wrap as
unsigned ones do. A uniform integer below m is `(x * m) >> 32` for 32 random bits x; its bias is below m / 2**32.
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
    """What a draw is for; two streams never share a number."""

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
    """The same finaliser on an int64 tensor, in place."""
    for shift, factor in ((30, MUL_1), (27, MUL_2)):
        z ^= (z >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        z *= _signed(factor)
    z ^= (z >> 31).bitwise_and_((1 << 33) - 1)
    return z


def derive(seed: int, stream: Stream, *counters: int) -> int:
    """A 64-bit key for the given counters (round, epoch, ...), as an unsigned Python integer."""
    key = _mix_int(seed * GOLDEN + int(stream))
    for counter in counters:
        key = _mix_int(key + (counter + 1) * GOLDEN)
    return key


def client_keys(seed: int, stream: Stream, round: int, epoch: int, clients: torch.Tensor) -> torch.Tensor:
    """One key per client, int64 `[len(clients)]`; `clients` are user ids (not positions)."""
    return keys_of(derive(seed, stream, round, epoch), clients)


def keys_of(base: int, clients: torch.Tensor) -> torch.Tensor:
    """`client_keys` for `base`, the key of everything but the client."""
    return _mix((clients + 1) * _signed(GOLDEN) + _signed(base))


def bits32(keys: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """32 random bits as int64 in [0, 2**32) for each (key, index), shapes broadcast."""
    return (_mix((index + 1) * _signed(GOLDEN) + keys) >> 32) & 0xFFFFFFFF


def below(keys: torch.Tensor, index: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """Uniform integers in [0, bound), `bound` in 1..2**31 - 1, shapes broadcast."""
    return bits32(keys, index).mul_(bound) >> 32


def premix(index: torch.Tensor) -> torch.Tensor:
    """The part of a draw that depends on the index only, for `below_premixed`."""
    return (index + 1) * _signed(GOLDEN)


def below_premixed(
    keys: torch.Tensor, mixed: torch.Tensor, bound: torch.Tensor, base: torch.Tensor | None = None
) -> torch.Tensor:
    """`below(keys, index, bound) + base` for `mixed = premix(index)`, in place in `keys`, all of one length."""
    if keys.device.type != "cpu":
        _mix(keys.add_(mixed)).bitwise_right_shift_(32).bitwise_and_(0xFFFFFFFF).mul_(bound).bitwise_right_shift_(32)
        return keys if base is None else keys.add_(base)
    most, add = unsigned(bound), None if base is None else unsigned(base)
    for part, x, high in _nearly_mixed(keys, mixed):
        np.right_shift(x, np.uint64(63), out=high)  # of x ^ (x >> 31) only the upper half is wanted
        x >>= np.uint64(32)
        x ^= high
        x *= most[part]
        x >>= np.uint64(32)
        if add is not None:
            x += add[part]
    return keys


def sort_keys_premixed(keys: torch.Tensor, mixed: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """`bits32(keys, index) << 32 | low` for `mixed = premix(index)` and `low` below 2**32, in place in `keys`.

    As unsigned numbers they sort by the random bits first and by `low` second.
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
    """Pieces of `keys + mixed`, in place, all of the finaliser done but its last shift; with room of the same length.

    On a CPU by numpy's unsigned shifts, in pieces that stay in the cache: a third of the passes over memory.
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
    """The same 64-bit numbers, in the same memory, without a sign."""
    return values.numpy().view(np.uint64)


def generator(seed: int, stream: Stream, *counters: int) -> torch.Generator:
    """A CPU generator seeded from the counters, for initial values."""
    return torch.Generator().manual_seed(_signed(derive(seed, stream, *counters)))


def chance(keys: torch.Tensor, probability: float, index: int = 0) -> torch.Tensor:
    """True with the given probability (to 2**-32) for each key, bool of the keys' shape."""
    return bits32(keys, torch.full((1,), index, dtype=torch.int64, device=keys.device)) < int(probability * 2**32)


def round_half_up(value: float) -> int:
    """Nearest integer; halves go up (Python's own rounding sends them to the even neighbour)."""
    return int(value + 0.5)
