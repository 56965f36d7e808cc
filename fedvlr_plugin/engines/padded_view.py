"""A block of clients as a backbone sees it: padded samples `[B, S]`, or all items. See `backbones.base`.

What is broadcast stays as it is for a whole round, so a layer that is applied to item vectors may be applied to all
items once (`JoinedProduct`), and samples then index the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as nnf

from fedvlr_plugin.aggregation.broadcast import Broadcast


class JoinedProduct(NamedTuple):
    """The item side of a joined layer, taken for all items: `table [n, n_out]`, `views [n, G, n_out]` or None."""

    table: torch.Tensor
    views: torch.Tensor | None

    def tensors(self) -> list[torch.Tensor]:
        """Those that are there."""
        return [self.table] if self.views is None else [self.table, self.views]


class Received(NamedTuple):
    """What a block computes with: a broadcast with its views by item `[n, G, width]`, and products by layer."""

    broadcast: Broadcast
    products: Mapping[str, JoinedProduct]


def by_item(broadcast: Broadcast) -> Broadcast:
    """The broadcast with its views laid out `[n_items, G, width]`, for gathering."""
    if broadcast.views is None:
        return broadcast
    return replace(broadcast, views=broadcast.views.transpose(0, 1).contiguous())


@dataclass
class PaddedView:
    """`ClientView` of B clients.

    Attributes:
        received: what was broadcast, with views by item; layers may have a copy for each client.
        head: private parameters by name, `[B, ...]`.
        weights: the router's `[B, G]`, None without a router.
        items: `[B, S]`, None for all items.
        mask: `[B, S]`, where there is a sample; None where nothing is padded.
        own_rows: private item vectors `[B, S, d]`, None where the backbone has none.
    """

    received: Received
    head: dict[str, torch.Tensor]
    weights: torch.Tensor | None
    items: torch.Tensor | None
    mask: torch.Tensor | None
    own_rows: torch.Tensor | None

    @property
    def has_item(self) -> bool:
        return self.received.broadcast.views is not None

    def at(
        self, items: torch.Tensor, mask: torch.Tensor | None = None, own_rows: torch.Tensor | None = None
    ) -> PaddedView:
        """The same clients with other items `[B, S']`."""
        return replace(self, items=items, mask=self.mask if mask is None else mask, own_rows=own_rows)

    def private(self, name: str) -> torch.Tensor:
        return self.head[name][:, None]

    def _rows(self, table: torch.Tensor) -> torch.Tensor:
        """Rows of a table `[n, w]` at the items, `[B, S, w]` (or `[1, n, w]` for all items)."""
        if self.items is None:
            return table[None]
        return table.index_select(0, self.items.reshape(-1)).view(*self.items.shape, -1)

    def item(self) -> torch.Tensor:
        return self._mixed(self.received.broadcast.item_views())

    def _mixed(self, views: torch.Tensor) -> torch.Tensor:
        """Each client's mixture of `views [n, G, w]` at the items."""
        if self.weights is None:
            return self._rows(views[:, 0])
        n_views, width = views.shape[1:]
        if self.items is None:
            return torch.einsum("bg,ngw->bnw", self.weights, views)
        rows = self._rows(views.reshape(len(views), -1)).unflatten(2, (n_views, width))
        return torch.einsum("bg,bsgw->bsw", self.weights, rows)

    def table(self, name: str) -> torch.Tensor:
        return self._rows(self.received.broadcast.tables[name])

    def own(self) -> torch.Tensor:
        if self.own_rows is None:
            raise RuntimeError("this backbone declares no private item rows")
        return self.own_rows

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.received.broadcast.layers[name]
        if weight.dim() == 3:  # a copy for each client
            return torch.baddbmm(bias[:, None], x.expand(len(weight), -1, -1), weight.transpose(1, 2))
        return nnf.linear(x, weight, bias)

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        weight, bias = self.received.broadcast.layers[name]
        user_weight, item_weight = weight.split([user.shape[-1], weight.shape[-1] - user.shape[-1]], dim=-1)
        shift = torch.matmul(user, user_weight.transpose(-1, -2)) + (bias if weight.dim() == 2 else bias[:, None])
        product = self.received.products.get(name)
        if product is not None:
            item_side = self._rows(product.table)
            if product.views is not None:
                item_side = item_side + self._mixed(product.views)
            return item_side + shift
        items = self.table(table) + self.item() if self.has_item else self.table(table)
        return torch.matmul(items, item_weight.transpose(-1, -2)) + shift

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self.received.broadcast.layers[name]
        hidden_weight, product_weight = weight.split([hidden.shape[-1], user.shape[-1]], dim=-1)
        if weight.dim() == 2:
            hidden_weight, product_weight = hidden_weight[None], product_weight[None]
        user_weight = (user * product_weight).transpose(1, 2)
        scores = torch.matmul(hidden, hidden_weight.transpose(1, 2)) + torch.matmul(rows, user_weight)
        return (scores + (bias if bias.dim() == 1 else bias[:, None]))[..., 0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        if self.mask is None:
            return values.mean(dim=(1, 2))
        kept = torch.where(self.mask[..., None], values, 0.0).sum((1, 2))
        return kept / (self.mask.sum(1) * values.shape[-1])


def joined_products(joins: Mapping[str, str], dim: int, received: Broadcast) -> dict[str, JoinedProduct]:
    """Apply the item side of each joined layer to all items.

    Args:
        joins: the one table of each joined layer, by layer (`Backbone.joins`).
        dim: width of an item vector; the last `dim` columns of a layer's weight are its item side.
        received: the broadcast, with views by item.
    """
    products = {}
    for layer, table in joins.items():
        item_weight = received.layers[layer].weight[:, -dim:].t()
        views = None if received.views is None else received.views @ item_weight
        products[layer] = JoinedProduct(received.tables[table] @ item_weight, views)
    return products


@dataclass
class Layout:
    """Where ragged samples go in a padded `[B, S]`.

    Attributes:
        places: `[K]`, each sample's flat position.
        shape: (B, S).
        mask: `[B, S]`, where there is a sample.
    """

    places: torch.Tensor
    shape: tuple[int, int]
    mask: torch.Tensor

    @classmethod
    def from_ragged(cls, indptr: torch.Tensor, owner: torch.Tensor) -> Layout:
        """From `indptr [B + 1]` and each sample's client, `owner [K]`."""
        n_clients = len(indptr) - 1
        longest = int(torch.diff(indptr).max())
        places = owner * longest + torch.arange(len(owner), device=owner.device) - indptr[owner]
        mask = torch.zeros(n_clients * longest, dtype=torch.bool, device=owner.device)
        mask[places] = True
        return cls(places, (n_clients, longest), mask.view(n_clients, longest))

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """`[K, ...]` -> `[B, S, ...]`, zeros in between."""
        padded = values.new_zeros((self.shape[0] * self.shape[1], *values.shape[1:]))
        return padded.index_copy(0, self.places, values).view(*self.shape, *values.shape[1:])
