"""VBPR: a user vector times the item's ID vector joined with its projected features (`baselines.md` section 2).

He & McAuley, AAAI 2016, in the form the comparison uses: any number of modalities, no item bias.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from fedvlr_plugin.centralized.base import CentralizedModel, CentralizedParams, HostConfig, xavier
from fedvlr_plugin.centralized.losses import bpr, embedding_norms


class VBPRParams(CentralizedParams):
    """Settings of VBPR.

    Attributes:
        reg_weight: weight of the un-squared norms of the batch's vectors, at least 0.
        learning_rate: above 0.
    """

    reg_weight: float = Field(1.0, ge=0)
    learning_rate: float = Field(1e-2, gt=0)


class VBPR(CentralizedModel):
    """Score p_u . [Q_i, W x_i + b]; features are frozen. Without features: plain matrix factorisation."""

    Params = VBPRParams
    params: VBPRParams
    features: torch.Tensor

    def __init__(self, config: HostConfig, dataset: Any) -> None:
        super().__init__(config, dataset)
        n_users, n_items = self.shape
        d = self.params.embedding_size
        tables = [torch.from_numpy(m.matrix) for m in self.modalities]
        self.register_buffer("features", torch.cat(tables, dim=1) if tables else torch.empty(n_items, 0), False)
        self.user = xavier(n_users, 2 * d if tables else d)
        self.item = xavier(n_items, d)
        self.project = torch.nn.Linear(self.features.shape[1], d) if tables else None
        if self.project is not None:
            torch.nn.init.xavier_normal_(self.project.weight)
            torch.nn.init.zeros_(self.project.bias)

    def _items(self, rows: torch.Tensor | slice) -> torch.Tensor:
        if self.project is None:
            return self.item[rows]
        return torch.cat([self.item[rows], self.project(self.features[rows])], dim=1)

    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.user, self._items(slice(None))

    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Compute BPR + reg_weight * EmbLoss(p_u, v_i, v_j)."""
        u, i, j = self.user[users], self._items(positives), self._items(negatives)
        ranking = bpr((u * i).sum(dim=1), (u * j).sum(dim=1))
        return ranking + self.params.reg_weight * embedding_norms(u, i, j)
