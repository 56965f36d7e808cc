"""Where a block's upload goes as it comes into being: into one running sum, or client by client into rows of its own.

Both take sum_k weight_k q_{owner(k)} at item(k). `SumSink` adds over clients at once, `RowSink` keeps one row for
each touched (client, item) pair, which privacy, secure aggregation and robust rules need. Imports `ragged`, `samples`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from fedvlr_plugin.federation.histories import HistoryBlock
from fedvlr_plugin.federation.ragged import scatter
from fedvlr_plugin.federation.samples import Step


class Apart(NamedTuple):
    """A block that was run client by client: mean losses `[B]`, and `keys`, `rows`, `layers` of `ClientUploads`."""

    losses: torch.Tensor
    keys: torch.Tensor
    rows: torch.Tensor
    layers: torch.Tensor


class Sink(Protocol):
    """See the module."""

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds weights `[K]` times q `[B, w]` of each sample's owner at its item."""

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds rows `[K, w]` at the owners' items."""


class SumSink:
    """One sum `[n_items, w]` over all clients, changed in place."""

    def __init__(self, sums: torch.Tensor) -> None:
        self.sums = sums

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        scatter(self.sums, items, q, owner, weights)

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        self.sums.index_add_(0, items, rows)


class RowSink:
    """A row for each key (position * n_items + item, ascending)."""

    def __init__(self, keys: torch.Tensor, n_items: int, like: torch.Tensor) -> None:
        self.keys, self.n_items = keys, n_items
        self.rows = like.new_zeros(len(keys), like.shape[1])

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        self.add_rows(items, owner, q.index_select(0, owner).mul_(weights[:, None]))

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        self.rows.index_add_(0, torch.searchsorted(self.keys, owner * self.n_items + items), rows)


def touched_keys(block: HistoryBlock, steps: Sequence[Step], n_items: int, history: bool) -> torch.Tensor:
    """position * n_items + item of all that a block's steps (and histories, with a router) touch; ascending."""
    parts = [step.owner * n_items + step.items for step in steps]
    parts += [step.owner * n_items + step.positives for step in steps if step.positives is not None]
    if history:
        parts.append(block.history_owner * n_items + block.history_items)
    keys: torch.Tensor = torch.unique(torch.cat(parts))
    return keys
