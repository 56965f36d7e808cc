"""The view `only:NAME`: one modality alone (`only:text`, `only:id`), nothing mixed.

Not part of the paper's set. With `views: [only:vision, only:text, only:id]` the router's weights say directly
which modality a client leans on, which is how the planted data set checks that routers learn what they should.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.operators import ViewOperator

PREFIX = "only:"


class ModalityView(ViewOperator):
    """Passes one input on. Raises `ConfigError` when the data set has no input of that name."""

    def __init__(self, names: Sequence[str], dim: int, generator: torch.Generator, chosen: str) -> None:
        super().__init__(names, dim, generator)
        if chosen not in self.names:
            raise ConfigError(
                f"view '{PREFIX}{chosen}': no input is called '{chosen}'; allowed: {', '.join(self.names)}"
            )
        self.index = self.names.index(chosen)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[self.index]
