"""The cohort of a round, and which of its clients answer.

Drop-outs never start. Stragglers train, but their upload arrives when the round is over: it is stale and does not count.
Everything is drawn by counter from (seed, round, client), so that nothing depends on blocks, processes or a resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedvlr_plugin.config import Faults
from fedvlr_plugin.rng import Stream, bits32, chance, client_keys, round_half_up


@dataclass(frozen=True)
class Answers:
    """A cohort by whether its clients answer.

    Attributes:
        in_time: user ids of those whose upload counts.
        late: user ids of the stragglers.
        lost: how many dropped out.
    """

    in_time: torch.Tensor
    late: torch.Tensor
    lost: int

    def counts(self) -> dict[str, int]:
        """Clients whose upload does not count, by reason."""
        counts = {"dropped out": self.lost, "late": len(self.late)}
        return {reason: number for reason, number in counts.items() if number}


def answers(faults: Faults | None, seed: int, round: int, cohort: torch.Tensor) -> Answers:
    """Draw which clients of a cohort answer.

    Args:
        faults: rates of drop-outs and, among those that start, of stragglers; None for neither.
        seed: of the run.
        round: counted from 1.
        cohort: user ids.
    """
    if faults is None:
        return Answers(cohort, cohort[:0], 0)
    keys = client_keys(seed, Stream.FAULTS, round, 0, cohort)
    started = ~chance(keys, faults.dropout)
    late = started & chance(keys, faults.stragglers, index=1)
    return Answers(cohort[started & ~late], cohort[late], int((~started).sum()))


def draw_cohort(seed: int, round: int, n_clients: int, participation: float) -> torch.Tensor:
    """Draw the clients of one round: round(q * U) of them, at least one, without replacement; int64 ascending."""
    if participation >= 1.0:
        return torch.arange(n_clients)
    size = max(1, round_half_up(participation * n_clients))
    order = bits32(
        client_keys(seed, Stream.COHORT, round, 0, torch.arange(n_clients)), torch.zeros(1, dtype=torch.int64)
    )
    return torch.argsort(order, stable=True)[:size].sort().values


def draw_poisson(seed: int, round: int, n_clients: int, participation: float) -> torch.Tensor:
    """Draw the clients of one round under Poisson sampling: each independently with probability q; int64 ascending."""
    keys = client_keys(seed, Stream.COHORT, round, 0, torch.arange(n_clients))
    return torch.nonzero(chance(keys, participation))[:, 0]
