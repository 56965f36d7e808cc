"""What an engine is: local training of a cohort against a broadcast, and scores of clients. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch


@dataclass
class Uplink:
    """The sum over the cohort of alpha_u times what client u uploads, and the round's accounts.

    Attributes:
        sums: by the broadcast's names and shapes.
        loss: mean local loss over steps, averaged over clients (kept apart from the uploads; a diagnostic).
        clients: clients that took at least one step. samples: samples they trained on.
        seconds: wall seconds by phase.
    """

    sums: dict[str, torch.Tensor]
    loss: float
    clients: int
    samples: int
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """How clients are executed. Both engines give the same result; see `sequential` and `batched`."""

    def local_round(
        self, broadcast: dict[str, torch.Tensor], cohort: torch.Tensor, weights: torch.Tensor, round: int
    ) -> Uplink:
        """Local epochs of the clients `cohort` (user ids) of weights alpha_u `[len(cohort)]`; rounds from 1."""

    def score(self, broadcast: dict[str, torch.Tensor], users: torch.Tensor) -> torch.Tensor:
        """Scores of all items for some users of this process, `[len(users), n_items]`."""

    def router_weights(self, broadcast: dict[str, torch.Tensor]) -> npt.NDArray[np.float64] | None:
        """w_u of every client of this process in the order of `clients()`, `[., G]`, None without a router."""

    def export_private(self) -> dict[str, torch.Tensor]:
        """Private parameters of this process's clients as plain tensors, for a checkpoint that was asked for."""

    def import_private(self, state: dict[str, torch.Tensor]) -> None:
        """Puts exported private parameters in force."""

    def snapshot(self) -> object:
        """A copy of the private parameters, for keeping the best round."""

    def restore(self, snapshot: object) -> None:
        """Puts a snapshot back."""
