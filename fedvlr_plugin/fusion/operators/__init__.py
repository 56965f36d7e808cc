"""View operators: each turns the normalised modalities `[n_items, d]` into one view `[n_items, d]`.

An operator is a subclass of `ViewOperator` in a file of its own, registered under the name that the config
uses (`views: [sum, mlp, gate]`). Packages outside this one add operators through the entry-point group
`fedvlr_plugin.views`. Imports `registry` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from fedvlr_plugin.registry import Registry


class ViewOperator(torch.nn.Module, ABC):
    """One fusion operator.

    Args:
        names: names of the inputs in order: the content modalities, then `"id"` when D takes part.
        dim: d, the width of every input and of the view.
        generator: source of the initial values.
    """

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(names)
        self.dim = dim

    @abstractmethod
    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps `len(names)` tensors `[n_items, d]` to one view `[n_items, d]`, before its LayerNorm."""


VIEWS: Registry[type[ViewOperator]] = Registry("view operator", "fedvlr_plugin.views")


def make_linear(n_in: int, n_out: int, generator: torch.Generator) -> torch.nn.Linear:
    """A linear layer with Xavier-uniform weights from `generator` and zero bias."""
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out)
    torch.nn.init.xavier_uniform_(layer.weight, generator=generator)
    torch.nn.init.zeros_(layer.bias)
    return layer


from fedvlr_plugin.fusion.operators import gate, mlp, modality, total  # noqa: E402, F401  (they register themselves)
