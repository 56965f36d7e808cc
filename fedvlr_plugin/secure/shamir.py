"""Shamir's secret sharing over the prime field of 2**127 - 1, written plainly. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PRIME = (1 << 127) - 1


def share(coefficients: Sequence[int], holder: int) -> int:
    """The polynomial sum_k c_k x^k at x = holder + 1; c_0 is the secret, its degree the threshold less one."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * (holder + 1) + coefficient) % PRIME
    return value


def weights(holders: Sequence[int]) -> list[int]:
    """Lagrange's weights at 0 for shares of these holders."""
    out = []
    for mine in holders:
        top = bottom = 1
        for other in holders:
            if other != mine:
                top = top * (other + 1) % PRIME
                bottom = bottom * (other - mine) % PRIME
        out.append(top * pow(bottom, -1, PRIME) % PRIME)
    return out


def recover(shares: Mapping[int, int]) -> int:
    """The secret from at least threshold shares by holder; fewer give a number that tells nothing."""
    holders = list(shares)
    return sum(w * shares[h] for w, h in zip(weights(holders), holders, strict=True)) % PRIME
