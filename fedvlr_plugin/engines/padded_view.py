"""A block of clients as a backbone sees it: padded samples `[B, S]`, or all items. See `backbones.contract`.

What is broadcast stays as it is for a whole round, so a layer that is applied to item rows may be taken through the
tables once (`through.*`), and samples then gather rows of the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as nnf


@dataclass
class PaddedView:
    """`ClientView` of B clients with `items [B, S]` (None: all items) and `mask [B, S]` (None: nothing padded)."""

    received: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    weights: torch.Tensor | None
    items: torch.Tensor | None
    mask: torch.Tensor | None
    own_rows: torch.Tensor | None

    @property
    def has_item(self) -> bool:
        return "views" in self.received

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
        return self._mixed(self.received["views"])

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
        return self._rows(self.received[f"table.{name}"])

    def own(self) -> torch.Tensor:
        if self.own_rows is None:
            raise RuntimeError("this backbone declares no private item rows")
        return self.own_rows

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.received[f"layer.{name}.weight"], self.received[f"layer.{name}.bias"]
        if weight.dim() == 3:  # a copy for each client
            return torch.baddbmm(bias[:, None], x.expand(len(weight), -1, -1), weight.transpose(1, 2))
        return nnf.linear(x, weight, bias)

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        weight, bias = self.received[f"layer.{name}.weight"], self.received[f"layer.{name}.bias"]
        of_user, of_row = weight.split([user.shape[-1], weight.shape[-1] - user.shape[-1]], dim=-1)
        shift = torch.matmul(user, of_user.transpose(-1, -2)) + (bias if weight.dim() == 2 else bias[:, None])
        through = f"through.{name}"
        if through in self.received:
            rows = self._rows(self.received[through])
            if self.has_item:
                rows = rows + self._mixed(self.received[f"{through}.views"])
            return rows + shift
        rows = self.table(table) + self.item() if self.has_item else self.table(table)
        return torch.matmul(rows, of_row.transpose(-1, -2)) + shift

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self.received[f"layer.{name}.weight"], self.received[f"layer.{name}.bias"]
        of_hidden, of_product = weight.split([hidden.shape[-1], user.shape[-1]], dim=-1)
        if weight.dim() == 2:
            of_hidden, of_product = of_hidden[None], of_product[None]
        of_user = (user * of_product).transpose(1, 2)
        scores = torch.matmul(hidden, of_hidden.transpose(1, 2)) + torch.matmul(rows, of_user)
        return (scores + (bias if bias.dim() == 1 else bias[:, None]))[..., 0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        if self.mask is None:
            return values.mean(dim=(1, 2))
        kept = torch.where(self.mask[..., None], values, 0.0).sum((1, 2))
        return kept / (self.mask.sum(1) * values.shape[-1])


def take_through(joins: Mapping[str, str], dim: int, received: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The item side of each joined layer, for all items: `through.layer [n, n_out]`, `through.layer.views [n, G, n_out]`."""
    out = {}
    for layer, table in joins.items():
        of_row = received[f"layer.{layer}.weight"][:, -dim:]
        out[f"through.{layer}"] = received[f"table.{table}"] @ of_row.t()
        if "views" in received:
            out[f"through.{layer}.views"] = received["views"] @ of_row.t()
    return out


@dataclass
class Layout:
    """Where ragged samples `[K]` go in a padded `[B, S]`; `at [K]` are flat positions."""

    at: torch.Tensor
    shape: tuple[int, int]
    mask: torch.Tensor

    @classmethod
    def of(cls, indptr: torch.Tensor, owner: torch.Tensor) -> Layout:
        """From ragged `indptr [B + 1]`, `owner [K]`."""
        n_clients = len(indptr) - 1
        longest = int(torch.diff(indptr).max())
        at = owner * longest + torch.arange(len(owner), device=owner.device) - indptr[owner]
        mask = torch.zeros(n_clients * longest, dtype=torch.bool, device=owner.device)
        mask[at] = True
        return cls(at, (n_clients, longest), mask.view(n_clients, longest))

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """`[K, ...]` -> `[B, S, ...]`, zeros in between."""
        out = values.new_zeros((self.shape[0] * self.shape[1], *values.shape[1:]))
        return out.index_copy(0, self.at, values).view(*self.shape, *values.shape[1:])
