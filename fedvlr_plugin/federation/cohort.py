"""Who answers in a round: drop-outs never start, stragglers train at home but answer too late to count.

Drawn by counter from (seed, round, client), so that nothing depends on blocks, processes or a resume. A straggler's
update belongs to a round that is over when it arrives: it is stale and refused, as `intake` would refuse it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedvlr_plugin.config import Faults
from fedvlr_plugin.rng import Stream, bits32, chance, client_keys, round_half_up


@dataclass(frozen=True)
class Answers:
    """User ids of a cohort by what became of them; `lost` is a number only."""

    in_time: torch.Tensor
    late: torch.Tensor
    lost: int

    def counts(self) -> dict[str, int]:
        """Clients whose upload does not count, by reason."""
        counts = {"dropped out": self.lost, "late": len(self.late)}
        return {reason: number for reason, number in counts.items() if number}


def answers(faults: Faults | None, seed: int, round: int, cohort: torch.Tensor) -> Answers:
    """What becomes of the clients `cohort` (user ids) in a round; stragglers are drawn among those that start."""
    if faults is None:
        return Answers(cohort, cohort[:0], 0)
    keys = client_keys(seed, Stream.FAULTS, round, 0, cohort)
    started = ~chance(keys, faults.dropout)
    late = started & chance(keys, faults.stragglers, index=1)
    return Answers(cohort[started & ~late], cohort[late], int((~started).sum()))


def draw_cohort(seed: int, round: int, n_clients: int, participation: float) -> torch.Tensor:
    """The clients of one round, int64 ascending: round(q * U) of them, at least one, drawn without replacement."""
    if participation >= 1.0:
        return torch.arange(n_clients)
    size = max(1, round_half_up(participation * n_clients))
    order = bits32(
        client_keys(seed, Stream.COHORT, round, 0, torch.arange(n_clients)), torch.zeros(1, dtype=torch.int64)
    )
    return torch.argsort(order, stable=True)[:size].sort().values


def draw_poisson(seed: int, round: int, n_clients: int, participation: float) -> torch.Tensor:
    """The clients of one round under Poisson sampling, int64 ascending: each by itself with probability q."""
    keys = client_keys(seed, Stream.COHORT, round, 0, torch.arange(n_clients))
    return torch.nonzero(chance(keys, participation))[:, 0]
