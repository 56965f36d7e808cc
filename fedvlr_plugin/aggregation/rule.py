"""How uploads become the one sum that the server pulls back: the contract of the stages between clients and server.

    attack (malicious clients change their uploads) -> check (a broken upload gets weight 0) -> rule -> server

Without conditions the engines sum as they train, and none of this runs. With them the engine hands uploads over
client by client (`uploads.ClientUploads`), and a `Rule` makes the sum: the plain weighted sum here, differential
privacy in `noise`, secure aggregation in `secure`, robust rules in `robust`; `factory` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from fedvlr_plugin.aggregation.uploads import ClientUploads, RunningSum, UploadShape


@dataclass(frozen=True)
class Cohort:
    """What a rule may know of a round before any upload arrives.

    Attributes:
        round: counted from 1.
        clients: user ids of the cohort, ascending, `[S]`.
        sizes: n_u of the cohort's clients, `[S]`.
        n_users: U, number of all clients.
        weighting: how alpha_u follows from n_u, by the backbone.
    """

    round: int
    clients: torch.Tensor
    sizes: torch.Tensor
    n_users: int
    weighting: Literal["samples", "equal"]

    def weights(self, sizes: torch.Tensor) -> torch.Tensor:
        """Compute alpha_u of clients with the given n_u: n_u / sum of n over the cohort, or 1 / |S|, in float64."""
        if self.weighting == "equal":
            return torch.full_like(sizes, 1.0 / max(len(self.clients), 1), dtype=torch.float64)
        return sizes.to(torch.float64) / self.sizes.sum().clamp(min=1).to(torch.float64)


class Rule(Protocol):
    """How a round's uploads become one sum. Called in the order `begin`, `take` (any number of times), `total`."""

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        """Start a round.

        Args:
            cohort: who may upload.
            shape: names and sizes of the broadcast.
            dtype: of the sum.
            device: of the sum.
        """

    def take(self, uploads: ClientUploads) -> None:
        """Receive a block of finite uploads of clients of the cohort; each client comes once a round."""

    def total(self) -> dict[str, torch.Tensor] | None:
        """Return the sum that the server pulls back, in the broadcast's shapes; None where the round is skipped."""

    def counts(self) -> dict[str, float]:
        """Return the round's accounts for its record, e.g. `clipped`; nothing about a single client."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint must hold (an accountant's history, an adaptive bound); may be empty."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put a state back; raises `ConfigError` where it is another mechanism's."""


class Transform(Protocol):
    """A change of uploads on their way to the server (an attack)."""

    def __call__(self, uploads: ClientUploads, cohort: Cohort) -> ClientUploads:
        """Return the uploads as they arrive."""


class WeightedSum:
    """The plain rule, sum_u alpha_u upload_u: what the engines sum by themselves where no rule is needed."""

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.cohort = cohort
        self.sum = RunningSum(shape, dtype, device)
        self.taken = 0

    def take(self, uploads: ClientUploads) -> None:
        self.sum.add(uploads, self.cohort.weights(uploads.sizes))
        self.taken += len(uploads.clients)

    def total(self) -> dict[str, torch.Tensor] | None:
        return self.sum.tensors() if self.taken else None

    def counts(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        return None
