"""Uploads client by client, for everything that looks at single clients before the sum is taken.

The upload of client u has the broadcast's names and shapes, and is zero on the rows of items that u neither trained
on nor has in its history. So it is kept as rows: for a block of B clients the T touched (client, item) pairs, all
item tables of the broadcast side by side, and the shared layers as one dense vector per client:

    keys [T] = position * n_items + item (ascending, distinct),  rows [T, R],  layers [B, L]
    R = G * width (views) + sum of d over item tables

`UploadShape` translates between this form and the broadcast's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch

Tensors = Mapping[str, torch.Tensor]


class UploadShape:
    """Names and sizes of what is broadcast: item tables (`views`, `table.*`) and layers (`layer.*`)."""

    def __init__(self, broadcast: Tensors) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in broadcast.items()}
        self.items = [name for name in self.shapes if not name.startswith("layer.")]
        self.layers = [name for name in self.shapes if name.startswith("layer.")]
        self.n_items = self.shapes[self.items[0]][1 if self.items[0] == "views" else 0]
        self.widths = [self._width(name) for name in self.items]
        self.row_width = sum(self.widths)
        self.layer_sizes = [prod(self.shapes[name]) for name in self.layers]
        self.layer_width = sum(self.layer_sizes)

    @property
    def size(self) -> int:
        """Return how many numbers a dense upload has."""
        return self.n_items * self.row_width + self.layer_width

    def _width(self, name: str) -> int:
        shape = self.shapes[name]
        return shape[0] * shape[2] if name == "views" else shape[1]

    def flatten(self, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay tensors of the broadcast's shapes side by side: items `[n_items, R]` and layers `[L]`."""
        parts = [
            tensors[name].transpose(0, 1).reshape(self.n_items, -1) if name == "views" else tensors[name]
            for name in self.items
        ]
        rows = torch.cat(parts, dim=1)
        return rows, torch.cat([rows.new_zeros(0), *(tensors[name].reshape(-1) for name in self.layers)])

    def unflatten(self, rows: torch.Tensor, layers: torch.Tensor) -> dict[str, torch.Tensor]:
        """Invert `flatten`."""
        out = {}
        for name, part in zip(self.items, rows.split(self.widths, dim=1), strict=True):
            if name == "views":
                n_views, n_items, width = self.shapes[name]
                out[name] = part.reshape(n_items, n_views, width).transpose(0, 1)
            else:
                out[name] = part
        for name, part in zip(self.layers, layers.split(self.layer_sizes), strict=True):
            out[name] = part.view(self.shapes[name])
        return {name: out[name] for name in self.shapes}


@dataclass(frozen=True)
class ClientUploads:
    """Uploads of B clients, each with weight 1.

    Attributes:
        shape: names and sizes of the broadcast.
        clients: user ids, `[B]`.
        sizes: n_u, numbers of samples, `[B]`, for weights that follow them.
        keys: position of the client * n_items + item, `[T]`, ascending and distinct.
        rows: what is uploaded for the touched items, `[T, R]`.
        layers: what is uploaded for the layers, `[B, L]`.
    """

    shape: UploadShape
    clients: torch.Tensor
    sizes: torch.Tensor
    keys: torch.Tensor
    rows: torch.Tensor
    layers: torch.Tensor

    @property
    def owner(self) -> torch.Tensor:
        """Return the position of the client of each touched item, `[T]`."""
        return self.keys // self.shape.n_items

    @property
    def items(self) -> torch.Tensor:
        """Return the touched items, `[T]`."""
        return self.keys % self.shape.n_items

    def norms(self) -> torch.Tensor:
        """Compute the L2 norm of each client's whole upload, `[B]`, summed in float64."""
        squares = torch.zeros(len(self.clients), dtype=torch.float64, device=self.rows.device)
        by_row = torch.linalg.vector_norm(self.rows, dim=1, dtype=torch.float64)
        squares.index_add_(0, self.owner, by_row.square())
        return (squares + self.layers.double().square().sum(1)).sqrt()

    def finite(self) -> torch.Tensor:
        """Tell which clients' uploads hold finite numbers only, bool `[B]`."""
        good = torch.isfinite(self.layers).all(1)
        doubtful = torch.nonzero(~torch.isfinite(self.rows.sum(1)))[:, 0]  # a sum is finite only if all its terms are
        bad = doubtful[~torch.isfinite(self.rows[doubtful]).all(1)]
        return good.index_fill(0, self.owner[bad], False)

    def times(self, factors: torch.Tensor) -> ClientUploads:
        """Multiply each client's upload by its factor `[B]`."""
        factors = factors.to(self.rows.dtype)
        return replace(self, rows=self.rows * factors[self.owner, None], layers=self.layers * factors[:, None])

    def only(self, kept: torch.Tensor) -> ClientUploads:
        """Select the clients for which `kept`, bool `[B]`, holds."""
        place = torch.cumsum(kept, 0) - 1
        here = kept[self.owner]
        keys = place[self.owner[here]] * self.shape.n_items + self.items[here]
        return ClientUploads(self.shape, self.clients[kept], self.sizes[kept], keys, self.rows[here], self.layers[kept])

    def dense(self, position: int) -> dict[str, torch.Tensor]:
        """Return the upload of the client at a position, in the broadcast's shapes."""
        here = self.owner == position
        rows = self.rows.new_zeros(self.shape.n_items, self.shape.row_width)
        return self.shape.unflatten(rows.index_copy(0, self.items[here], self.rows[here]), self.layers[position])


class RunningSum:
    """A weighted sum of uploads, block after block.

    Args:
        shape: names and sizes of the broadcast.
        dtype: of the sum.
        device: of the sum.
    """

    def __init__(self, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.rows = torch.zeros(shape.n_items, shape.row_width, dtype=dtype, device=device)
        self.layers = torch.zeros(shape.layer_width, dtype=dtype, device=device)

    def add(self, uploads: ClientUploads, weights: torch.Tensor) -> None:
        """Add sum_u weights_u * upload_u, with `weights [B]`."""
        weighted = uploads.times(weights)
        self.rows.index_add_(0, weighted.items, weighted.rows.to(self.rows.dtype))
        self.layers += weighted.layers.sum(0).to(self.layers.dtype)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the sum in the broadcast's shapes."""
        return self.shape.unflatten(self.rows, self.layers)


Collect = Callable[[ClientUploads], None]


def join_uploads(parts: list[ClientUploads]) -> ClientUploads:
    """Join blocks of uploads, with distinct clients, to one; raises `ValueError` where there is none."""
    if not parts:
        raise ValueError("no uploads to join")
    shape, keys, before = parts[0].shape, [], 0
    for part in parts:
        keys.append(part.keys + before * shape.n_items)
        before += len(part.clients)
    return ClientUploads(
        shape,
        torch.cat([part.clients for part in parts]),
        torch.cat([part.sizes for part in parts]),
        torch.cat(keys),
        torch.cat([part.rows for part in parts]),
        torch.cat([part.layers for part in parts]),
    )
