"""What an engine is: local training of a cohort against a broadcast, and scores of clients. Imports `uploads`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.uploads import Collect


@dataclass
class Uplink:
    """The sum over the cohort of alpha_u times what client u uploads, and the round's accounts.

    Attributes:
        sums: by the broadcast's names and shapes.
        loss: mean local loss over steps, averaged over clients (kept apart from the uploads; a diagnostic).
        clients: clients that took at least one step. samples: samples they trained on.
        seconds: wall seconds by phase.
        left_out: clients whose upload does not count, by reason (`not finite`, `late`, ...).
        accounts: what the rule of a per-client round counts (`clipped`, `epsilon`, ...).
    """

    sums: dict[str, torch.Tensor]
    loss: float
    clients: int
    samples: int
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """How clients are executed. Both engines give the same result; see `sequential` and `batched`."""

    def local_round(
        self,
        broadcast: dict[str, torch.Tensor],
        cohort: torch.Tensor,
        weights: torch.Tensor,
        round: int,
        collect: Collect | None = None,
    ) -> Uplink:
        """Local epochs of the clients `cohort` (user ids) of weights alpha_u `[len(cohort)]`; rounds from 1.

        With `collect` uploads (of weight 1) are handed to it client by client, and `Uplink.sums` is empty.
        """

    def score(self, broadcast: dict[str, torch.Tensor], users: torch.Tensor) -> torch.Tensor:
        """Scores of all items for some users of this process, `[len(users), n_items]`."""

    def router_weights(self, broadcast: dict[str, torch.Tensor]) -> npt.NDArray[np.float64] | None:
        """w_u of every client of this process in the order of `clients()`, `[., G]`, None without a router."""

    def export_private(self) -> dict[str, torch.Tensor]:
        """Private parameters of this process's clients as plain tensors, for a checkpoint that was asked for."""

    def import_private(self, state: dict[str, torch.Tensor]) -> None:
        """Puts exported private parameters in force."""

    def training_state(self) -> dict[str, torch.Tensor]:
        """All that this process's clients go on from: parameters, moments, counts of steps; see `checkpoint`."""

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts a training state back; the next round is then the same to the last bit."""

    def snapshot(self) -> object:
        """A copy of the private parameters, for keeping the best round."""

    def restore(self, snapshot: object) -> None:
        """Puts a snapshot back."""

    def snapshot_state(self, snapshot: object) -> dict[str, torch.Tensor]:
        """A snapshot as tensors by name, for a checkpoint."""

    def load_snapshot_state(self, state: Mapping[str, torch.Tensor]) -> object:
        """The inverse of `snapshot_state`."""
