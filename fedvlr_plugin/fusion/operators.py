"""View operators: each turns the normalised modalities `[n_items, d]` into one view `[n_items, d]` (section 3).

An operator is a subclass of `ViewOperator`, registered under the name that the config uses (`views: [sum, mlp, gate]`).
Packages outside this one add operators through the entry-point group `fedvlr_plugin.views`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.registry import Registry


class ViewOperator(torch.nn.Module, ABC):
    """Base of fusion operators; `forward` must be given.

    Args:
        names: names of the inputs in order: the content modalities, then `"id"` where the ID table D takes part.
        dim: d, width of every input and of the view.
        generator: source of all initial values.
    """

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(names)
        self.dim = dim

    @abstractmethod
    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Fuse the inputs.

        Args:
            inputs: a tensor `[n_items, d]` for each name, normalised.

        Returns:
            The view `[n_items, d]`, before its LayerNorm.
        """


VIEWS: Registry[type[ViewOperator]] = Registry("view operator", "fedvlr_plugin.views")


def make_linear(n_in: int, n_out: int, generator: torch.Generator) -> torch.nn.Linear:
    """Make a linear layer with Xavier-uniform weights and zero bias.

    Args:
        n_in: width of the inputs.
        n_out: width of the outputs.
        generator: source of the weights.
    """
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out)
    torch.nn.init.xavier_uniform_(layer.weight, generator=generator)
    torch.nn.init.zeros_(layer.bias)
    return layer


@VIEWS.register("gate")
class GateView(ViewOperator):
    """Sum of the inputs, each times a gate sigmoid(W [x_1; ...; x_M] + b) of width d (algorithm.md section 3)."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__(names, dim, generator)
        width = len(self.names) * dim
        self.gates = make_linear(width, width, generator)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        joined = torch.cat(tuple(inputs), dim=1)
        gated = torch.sigmoid(self.gates(joined)) * joined
        return gated.view(len(joined), len(self.names), self.dim).sum(1)


@VIEWS.register("mlp")
class MLPView(ViewOperator):
    """Layers M d -> 2 d -> d -> d of the concatenated inputs, ReLU between; also the fusion of the "+MLP" rows."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator) -> None:
        super().__init__(names, dim, generator)
        self.layers = torch.nn.Sequential(
            make_linear(len(self.names) * dim, 2 * dim, generator),
            torch.nn.ReLU(),
            make_linear(2 * dim, dim, generator),
            torch.nn.ReLU(),
            make_linear(dim, dim, generator),
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        fused: torch.Tensor = self.layers(torch.cat(tuple(inputs), dim=1))
        return fused


PREFIX = "only:"


class ModalityView(ViewOperator):
    """The view `only:NAME`: one input alone (`only:text`, `only:id`); the paper does not have it.

    With `views: [only:vision, only:text, only:id]` the router's weights say which modality a client relies on. The planted
    data set uses this to check that routers learn the planted weights.

    Args:
        names: names of the inputs.
        dim: d.
        generator: not used; there are no parameters.
        chosen: name of the input.

    Raises:
        ConfigError: the data set has no input of that name.
    """

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator, chosen: str) -> None:
        super().__init__(names, dim, generator)
        if chosen not in self.names:
            raise ConfigError(
                f"view '{PREFIX}{chosen}': no input is called '{chosen}'; allowed: {', '.join(self.names)}"
            )
        self.index = self.names.index(chosen)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[self.index]


@VIEWS.register("sum")
class SumView(ViewOperator):
    """Sum of the inputs; no parameters."""

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(tuple(inputs)).sum(0)
