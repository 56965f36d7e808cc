"""What a block of clients computes with: the broadcast as leaves whose gradients are the upload.

`WholeInputs`: all clients of a block share one leaf per tensor, so that the gradient is the (weighted) sum that is
uploaded. `ApartInputs`: each touched (client, item) pair has a copy of its row and each client a copy of the shared
layers, so that the gradient is every client's own upload. Imports `ragged`, `samples`.
"""

from __future__ import annotations

from typing import Protocol

import torch

from fedvlr_plugin.federation.histories import HistoryBlock
from fedvlr_plugin.federation.ragged import scatter

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


class WholeInputs:
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


class ApartInputs:
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
