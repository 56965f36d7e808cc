"""Where a block's upload goes as it comes into being: into one running sum, or client by client into rows of its own.

Both take sum_k weight_k q_{owner(k)} at item(k). `SummedUpload` adds over clients at once, `UploadPerClient` keeps one row for
each touched (client, item) pair, which privacy, secure aggregation and robust rules need.
What a block of clients computes with: the broadcast as leaves whose gradients are the upload.

`SharedLeaves`: all clients of a block share one leaf per tensor, so that the gradient is the (weighted) sum that is
uploaded. `LeavesPerClient`: each touched (client, item) pair has a copy of its row and each client a copy of the shared
layers, so that the gradient is every client's own upload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from fedvlr_plugin.engines.histories import HistoryBlock, scatter
from fedvlr_plugin.engines.sampling import Step


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


class SummedUpload:
    """One sum `[n_items, w]` over all clients, changed in place."""

    def __init__(self, sums: torch.Tensor) -> None:
        self.sums = sums

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        scatter(self.sums, items, q, owner, weights)

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        self.sums.index_add_(0, items, rows)


class UploadPerClient:
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


Tensors = dict[str, torch.Tensor]


class Inputs(Protocol):
    """See the module."""

    def first(self, clients: int) -> Tensors:
        """Tensors for the first clients of the block, by the broadcast's names."""

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Which row of the item tensors holds an item of a client."""

    def leaves(self) -> list[torch.Tensor]:
        """What gradients are taken of."""

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        """Sends the collected gradient `[B, G * width]` of the pooled histories to the views' gradient."""


def _share(block: HistoryBlock, like: torch.Tensor) -> torch.Tensor:
    """One over the length of the history, for each of its entries."""
    return torch.diff(block.history_indptr).clamp(min=1).to(like.dtype).reciprocal()[block.history_owner]


class SharedLeaves:
    """Leaves shared by all clients; gradients add up over blocks."""

    def __init__(self, received: Tensors) -> None:
        self.received = received

    def first(self, clients: int) -> Tensors:
        return self.received

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return items

    def leaves(self) -> list[torch.Tensor]:
        return list(self.received.values())

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        views = self.received["views"]
        if views.grad is None:
            views.grad = torch.zeros_like(views)
        flat = views.grad.view(len(views), -1)
        scatter(flat, block.history_items, grad, block.history_owner, _share(block, grad))


class LeavesPerClient:
    """A copy of the rows `keys [T]` (position * n_items + item, ascending) and of the layers for each client.

    Row 0 is nobody's: padding points there, so that what is not finite in one client cannot reach another.
    """

    def __init__(self, received: Tensors, keys: torch.Tensor, n_items: int, n_clients: int) -> None:
        self.keys, self.n_items, self.n_clients = keys, n_items, n_clients
        self.copies: Tensors = {}
        for name, value in received.items():
            whole = value.detach()
            if name.startswith("layer."):
                copy = whole.expand(n_clients, *whole.shape).clone()
            else:
                copy = torch.cat([torch.zeros_like(whole[:1]), whole.index_select(0, keys % n_items)])
            self.copies[name] = copy.requires_grad_()

    def first(self, clients: int) -> Tensors:
        return {n: v[:clients] if n.startswith("layer.") else v for n, v in self.copies.items()}

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(self.keys, owner * self.n_items + items) + 1

    def leaves(self) -> list[torch.Tensor]:
        return list(self.copies.values())

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        views = self.copies["views"]
        if views.grad is None:
            views.grad = torch.zeros_like(views)
        at = self.rows(block.history_owner, block.history_items)
        spread = grad.index_select(0, block.history_owner) * _share(block, grad)[:, None]
        views.grad.view(len(views), -1).index_add_(0, at, spread)

    def grads(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Item rows `[T, R]` side by side and layers `[B, L]`, as `ClientUploads` holds them."""
        of = {name: torch.zeros_like(v) if v.grad is None else v.grad for name, v in self.copies.items()}
        rows = torch.cat([g[1:].flatten(1) for name, g in of.items() if not name.startswith("layer.")], dim=1)
        layers = [g.flatten(1) for name, g in of.items() if name.startswith("layer.")]
        return rows, torch.cat([rows.new_zeros(self.n_clients, 0), *layers], dim=1)
