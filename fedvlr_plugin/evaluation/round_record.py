"""One round of training (or one epoch of a centralized model), as every loop reports it and every run stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

InMemory = Annotated[int, Field(exclude=True)]
"""A count that a stored run holds as a total only (`CostPart`), so it is left out of the stored round."""


@dataclass(frozen=True)
class RoundRecord:
    """One communication round.

    Numbers are checked when a record becomes part of a stored run: all of them must be finite there.

    Attributes:
        round: counted from 1.
        seconds: wall seconds by phase: `sampling`, `local`, `uplink`, `server`, `evaluation`.
        train_loss: mean local loss over the steps of the round, each client counted equally.
        valid: validation metrics in percent (`hr@50`, `ndcg@50`), None when the round was not validated.
        left_out: clients whose upload did not count, by reason.
        accounts: what the round's rule counted (`clipped`, `epsilon` so far, ...).
        clients: clients that trained.
        samples: samples that they trained on, over all local epochs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", allow_inf_nan=False, revalidate_instances="always"
    )

    round: int
    seconds: Mapping[str, float]
    train_loss: float
    valid: Mapping[str, float] | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    accounts: Mapping[str, float] = field(default_factory=dict)
    clients: InMemory = 0
    samples: InMemory = 0
