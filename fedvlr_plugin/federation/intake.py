"""The server's door: which uploads of a round may count, and why the others may not.

An upload that names a tensor that was not broadcast, has a wrong shape or kind of number, holds NaN or infinity,
comes a second time, or belongs to another round gets weight 0 and is counted by reason; the round goes on with the
rest. Used where uploads arrive as messages (the FedML pair); the engines make theirs in place and only have to look
for numbers that are not finite (`apart`). Imports nothing of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

REASONS = ("stale", "duplicate", "unknown client", "wrong names", "wrong shape", "wrong type", "not finite")


class Intake:
    """Uploads of one round.

    Args:
        broadcast: names, shapes and kinds of number to expect. round: the open round.
        clients: user ids that were called; None = anybody.

    Attributes:
        left_out: refused uploads by reason, see `REASONS`.
    """

    def __init__(self, broadcast: Mapping[str, torch.Tensor], round: int, clients: torch.Tensor | None = None) -> None:
        self.like = {name: (tuple(value.shape), value.dtype) for name, value in broadcast.items()}
        self.round = round
        self.called = None if clients is None else frozenset(clients.tolist())
        self.left_out: Counter[str] = Counter()
        self._admitted: set[int] = set()

    def admit(self, client: int, round: int, upload: Mapping[str, torch.Tensor]) -> str | None:
        """None when the upload counts; otherwise the reason why it does not, which is counted.

        A refused client may send again; an admitted one may not.
        """
        reason = self._reason(client, round, upload)
        if reason is None:
            self._admitted.add(client)
        else:
            self.left_out[reason] += 1
        return reason

    def _reason(self, client: int, round: int, upload: Mapping[str, torch.Tensor]) -> str | None:
        if round != self.round:
            return "stale"
        if client in self._admitted:
            return "duplicate"
        if self.called is not None and client not in self.called:
            return "unknown client"
        if upload.keys() != self.like.keys():
            return "wrong names"
        for name, value in upload.items():
            shape, kind = self.like[name]
            if tuple(value.shape) != shape:
                return "wrong shape"
            if value.dtype != kind:
                return "wrong type"
            if not bool(torch.isfinite(value).all()):
                return "not finite"
        return None
