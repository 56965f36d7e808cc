"""How uploads of a block of clients come into being: one sum over all clients, or each client's own.

Closed-form programs add q_{owner(k)} * weight_k at item(k) to an `Accumulator`: `SummedUpload` adds over clients at once,
`UploadPerClient` keeps one vector for each touched (client, item) pair, which privacy, secure aggregation and robust
rules need.

The autograd program takes gradients of leaves (`Inputs`). With `SharedLeaves` all clients of a block share one leaf per
tensor, so that its gradient is the weighted sum that is uploaded. With `LeavesPerClient` each touched (client, item) pair
has a copy of its vectors and each client a copy of the shared layers, so that gradients are the clients' own uploads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast, SharedLayer
from fedvlr_plugin.engines.histories import HistoryBlock, scatter
from fedvlr_plugin.engines.padded_view import Received
from fedvlr_plugin.engines.sampling import Step


class SeparateUploads(NamedTuple):
    """A block whose uploads were kept client by client: mean losses `[B]`; `keys`, `rows`, `layers` of `ClientUploads`."""

    losses: torch.Tensor
    keys: torch.Tensor
    rows: torch.Tensor
    layers: torch.Tensor


class Accumulator(Protocol):
    """See the module."""

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        """Add weights `[K]` times q `[B, w]` of each sample's owner at its item."""

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        """Add vectors `[K, w]` at the owners' items."""


class SummedUpload:
    """One sum `[n_items, w]` over all clients, changed in place."""

    def __init__(self, sums: torch.Tensor) -> None:
        self.sums = sums

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        scatter(self.sums, items, q, owner, weights)

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        self.sums.index_add_(0, items, rows)


class UploadPerClient:
    """A vector for each key (position in the block * n_items + item, ascending)."""

    def __init__(self, keys: torch.Tensor, n_items: int, like: torch.Tensor) -> None:
        self.keys, self.n_items = keys, n_items
        self.rows = like.new_zeros(len(keys), like.shape[1])

    def add(self, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor) -> None:
        self.add_rows(items, owner, q.index_select(0, owner).mul_(weights[:, None]))

    def add_rows(self, items: torch.Tensor, owner: torch.Tensor, rows: torch.Tensor) -> None:
        self.rows.index_add_(0, torch.searchsorted(self.keys, owner * self.n_items + items), rows)


def touched_keys(block: HistoryBlock, steps: Sequence[Step], n_items: int, history: bool) -> torch.Tensor:
    """Position in the block * n_items + item of all pairs that a block's steps touch, ascending and distinct.

    Args:
        block: the block's histories.
        steps: its local steps.
        n_items: number of items.
        history: whether histories are touched too (with a router).
    """
    parts = [step.owner * n_items + step.items for step in steps]
    parts += [step.owner * n_items + step.positives for step in steps if step.positives is not None]
    if history:
        parts.append(block.history_owner * n_items + block.history_items)
    keys: torch.Tensor = torch.unique(torch.cat(parts))
    return keys


class Inputs(Protocol):
    """See the module."""

    def first(self, clients: int) -> Received:
        """What the first clients of the block compute with."""

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Which row of the item tensors holds an item of a client, `[K]`."""

    def leaves(self) -> list[torch.Tensor]:
        """The tensors that gradients are taken of."""

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        """Add the gradient by the pooled histories, `[B, G * width]`, to that of the views of the histories' items."""


def _share(block: HistoryBlock, like: torch.Tensor) -> torch.Tensor:
    """One over the length of the history, for each of its entries."""
    return torch.diff(block.history_indptr).clamp(min=1).to(like.dtype).reciprocal()[block.history_owner]


class SharedLeaves:
    """Leaves shared by all clients; gradients add up over blocks."""

    def __init__(self, received: Received) -> None:
        self.received = received
        products = [tensor for product in received.products.values() for tensor in product.tensors()]
        self._leaves = [*received.broadcast.item_tensors(), *received.broadcast.layer_tensors(), *products]

    def first(self, clients: int) -> Received:
        return self.received

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return items

    def leaves(self) -> list[torch.Tensor]:
        return self._leaves

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        views = self.received.broadcast.item_views()
        if views.grad is None:
            views.grad = torch.zeros_like(views)
        flat = views.grad.view(len(views), -1)
        scatter(flat, block.history_items, grad, block.history_owner, _share(block, grad))


class LeavesPerClient:
    """A copy of the item vectors `keys [T]` (position * n_items + item, ascending), and of the layers for each client.

    Row 0 belongs to no client: padding points there, so that what is not finite in one client cannot reach another.

    Args:
        received: the broadcast, with views by item.
        keys: `[T]`.
        n_items: number of items.
        n_clients: B, the block's clients.
    """

    def __init__(self, received: Broadcast, keys: torch.Tensor, n_items: int, n_clients: int) -> None:
        self.keys, self.n_items, self.n_clients = keys, n_items, n_clients

        def of_items(table: torch.Tensor) -> torch.Tensor:
            table = table.detach()
            return torch.cat([torch.zeros_like(table[:1]), table.index_select(0, keys % n_items)]).requires_grad_()

        def of_clients(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.detach().expand(n_clients, *tensor.shape).clone().requires_grad_()

        self.copies = Broadcast(
            None if received.views is None else of_items(received.views),
            {name: of_items(table) for name, table in received.tables.items()},
            {name: SharedLayer(*map(of_clients, layer)) for name, layer in received.layers.items()},
        )

    def first(self, clients: int) -> Received:
        layers = {n: SharedLayer(w[:clients], b[:clients]) for n, (w, b) in self.copies.layers.items()}
        return Received(Broadcast(self.copies.views, self.copies.tables, layers), {})

    def rows(self, owner: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(self.keys, owner * self.n_items + items) + 1

    def leaves(self) -> list[torch.Tensor]:
        return [*self.copies.item_tensors(), *self.copies.layer_tensors()]

    def unpool(self, block: HistoryBlock, grad: torch.Tensor) -> None:
        views = self.copies.item_views()
        if views.grad is None:
            views.grad = torch.zeros_like(views)
        rows = self.rows(block.history_owner, block.history_items)
        spread = grad.index_select(0, block.history_owner) * _share(block, grad)[:, None]
        views.grad.view(len(views), -1).index_add_(0, rows, spread)

    def grads(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Item rows `[T, R]` side by side and layers `[B, L]`, as `ClientUploads` holds them."""
        rows = torch.cat([_grad(copies)[1:].flatten(1) for copies in self.copies.item_tensors()], dim=1)
        layers = [_grad(copies).flatten(1) for copies in self.copies.layer_tensors()]
        return rows, torch.cat([rows.new_zeros(self.n_clients, 0), *layers], dim=1)


def _grad(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
