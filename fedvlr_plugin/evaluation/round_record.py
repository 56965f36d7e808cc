"""The record of one training round, or of one epoch of a centralized model, as training loops report and runs store it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

InMemory = Annotated[int, Field(exclude=True)]
"""A count that is not stored by round; a stored run holds its total only (`CostPart`)."""


@dataclass(frozen=True)
class RoundRecord:
    """One communication round.

    All numbers must be finite; this is checked when a record becomes part of a stored run.

    Attributes:
        round: counted from 1.
        seconds: wall seconds by phase: `sampling`, `local`, `uplink`, `server`, `evaluation`.
        train_loss: mean local loss over the steps of the round, each client counted equally.
        valid: validation metrics in percent (`hr@50`, `ndcg@50`), None if the round was not validated.
        left_out: number of clients whose upload was not used, by reason.
        accounts: figures from the aggregation rule (`clipped`, `epsilon` so far, ...).
        clients: number of clients that trained.
        samples: number of samples they trained on, over all local epochs.
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
