"""BM3: bootstrapped multimodal representations, without negatives (`baselines.md` section 3). Zhou et al., WWW 2023."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch.nn.functional import dropout

from fedvlr_plugin.centralized.base import CentralizedModel, CentralizedParams, HostConfig, feature_table, xavier
from fedvlr_plugin.centralized.graphs import SMALL_DEGREE, Propagation, bipartite, interactions, normalised
from fedvlr_plugin.centralized.losses import distance, embedding_norms


class BM3Params(CentralizedParams):
    """Settings of BM3.

    Attributes:
        n_layers: graph propagation steps, at least 0.
        dropout: rate on the targets, in [0, 1).
        reg_weight: weight of the norms of the whole tables, at least 0.
        cl_weight: weight of the modality terms, at least 0.
    """

    n_layers: int = Field(1, ge=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    reg_weight: float = Field(0.1, ge=0)
    cl_weight: float = Field(2.0, ge=0)


class BM3(CentralizedModel):
    """Score f(h_u) . f(h_i), h_u = g_u, h_i = g_i + I_i, g the layer mean on the user-item graph."""

    Params = BM3Params
    params: BM3Params
    uses_negatives = False

    def __init__(self, config: HostConfig, dataset: Any) -> None:
        super().__init__(config, dataset)
        d = self.params.embedding_size
        self.user, self.item = (xavier(n, d) for n in self.shape)
        self.tables = torch.nn.ParameterList([feature_table(m) for m in self.modalities])
        self.towers = torch.nn.ModuleList([torch.nn.Linear(m.dim, d) for m in self.modalities])
        self.predictor = torch.nn.Linear(d, d)
        for layer in (*self.towers, self.predictor):
            torch.nn.init.xavier_normal_(layer.weight)
        pairs = interactions(self.train_users, self.train_items, self.shape, "collapse")
        self.graph = Propagation(bipartite(normalised(pairs, SMALL_DEGREE)))

    def latent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute h_u `[n_users, d]` and h_i `[n_items, d]`."""
        both = self.graph.layer_mean(torch.cat([self.user, self.item]), self.params.n_layers)
        users, items = both.split(self.shape)
        return users, items + self.item

    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = self.latent()
        return self.predictor(users), self.predictor(items)

    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Compute graph reconstruction in both directions + norms + cl_weight * (inter- + intra-modality terms)."""
        all_users, all_items = self.latent()
        total = self.params.reg_weight * embedding_norms(all_users, all_items)
        u, i = all_users[users], all_items[positives]
        with torch.no_grad():
            target_u, target_i = self._drop(u), self._drop(i)
        total = total + distance(self.predictor(u), target_i) + distance(self.predictor(i), target_u)
        for table, tower in zip(self.tables, self.towers, strict=True):
            modality = tower(table[positives])
            online = self.predictor(modality)
            with torch.no_grad():
                target = self._drop(modality)
            total = total + self.params.cl_weight * (distance(online, target_i) + distance(online, target))
        return total

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.params.dropout, training=True)
