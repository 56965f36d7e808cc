"""What the server sends to every client of a round, and the names that its tensors have in files, messages and uploads.

    views               `[G, n_items, width]`, item views of the fusion; none in the vanilla FedNCF
    table.<name>        `[n_items, d]`, an item table of the backbone
    layer.<name>.weight, layer.<name>.bias      `[n_out, n_in]`, `[n_out]`, a shared linear layer

Inside the program it is a `Broadcast`; names are for checkpoints, FedML's messages and uploads only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from fedvlr_plugin.errors import ConfigError

VIEWS, TABLE, LAYER = "views", "table.", "layer."


class SharedLayer(NamedTuple):
    """A linear layer: `weight [n_out, n_in]`, `bias [n_out]`; with a leading `[B]` where each client has a copy."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Broadcast:
    """The shared parameters as clients receive them.

    Attributes:
        views: `[G, n_items, width]`, None where the row broadcasts no item views.
        tables: item tables `[n_items, d]` by name.
        layers: linear layers by name.

    Example:
        >>> sent = Broadcast(torch.zeros(3, 5, 2), layers={"out": SharedLayer(torch.zeros(1, 2), torch.zeros(1))})
        >>> list(sent.named())
        ['views', 'layer.out.weight', 'layer.out.bias']
    """

    views: torch.Tensor | None = None
    tables: Mapping[str, torch.Tensor] = field(default_factory=dict)
    layers: Mapping[str, SharedLayer] = field(default_factory=dict)

    @classmethod
    def from_names(cls, tensors: Mapping[str, torch.Tensor]) -> Broadcast:
        """Build one from its tensors by name, the inverse of `named`.

        Raises:
            ConfigError: a name that no broadcast has, or a layer without its weight or bias.
        """
        views: torch.Tensor | None = None
        tables: dict[str, torch.Tensor] = {}
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            layer, _, part = name.removeprefix(LAYER).rpartition(".")
            if name == VIEWS:
                views = tensor
            elif name.startswith(TABLE):
                tables[name.removeprefix(TABLE)] = tensor
            elif name.startswith(LAYER) and layer and part in SharedLayer._fields:
                parts.setdefault(layer, {})[part] = tensor
            else:
                raise ConfigError(
                    f"'{name}' is no tensor of a broadcast; allowed: views, table.<name>, layer.<name>.weight, "
                    "layer.<name>.bias; use the same version on server and clients"
                )
        for layer, both in parts.items():
            if len(both) < len(SharedLayer._fields):
                raise ConfigError(f"the broadcast layer '{layer}' has only its {next(iter(both))}; send both parts")
        return cls(views, tables, {layer: SharedLayer(**both) for layer, both in parts.items()})

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors by name: views, tables, and each layer's weight and bias."""
        named = {} if self.views is None else {VIEWS: self.views}
        named |= {f"{TABLE}{name}": table for name, table in self.tables.items()}
        for name, layer in self.layers.items():
            named |= {f"{LAYER}{name}.{part}": tensor for part, tensor in layer._asdict().items()}
        return named

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Broadcast:
        """A broadcast of the same form with `change` applied to every tensor."""
        return Broadcast(
            None if self.views is None else change(self.views),
            {name: change(table) for name, table in self.tables.items()},
            {name: SharedLayer(*map(change, layer)) for name, layer in self.layers.items()},
        )

    def item_tensors(self) -> list[torch.Tensor]:
        """Views and item tables, in the order of `named`."""
        return [*([] if self.views is None else [self.views]), *self.tables.values()]

    def layer_tensors(self) -> list[torch.Tensor]:
        """Weights and biases of the layers, in the order of `named`."""
        return [tensor for layer in self.layers.values() for tensor in layer]

    def item_views(self) -> torch.Tensor:
        """The views; raises `RuntimeError` where the row broadcasts none."""
        if self.views is None:
            raise RuntimeError("this row broadcasts no item views")
        return self.views

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.item_tensors(), *self.layer_tensors()])
