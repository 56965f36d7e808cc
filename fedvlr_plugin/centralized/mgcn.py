"""MGCN: behaviour-guided purifier, item-item views, behaviour-aware fuser (`baselines.md` section 4). Yu et al., MM 2023."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import nn

from fedvlr_plugin.centralized.base import CentralizedModel, CentralizedParams, HostConfig, feature_table, xavier
from fedvlr_plugin.centralized.graphs import Propagation, bipartite, interactions, item_graph, normalised
from fedvlr_plugin.centralized.losses import info_nce, log_bpr


class MGCNParams(CentralizedParams):
    """Settings of MGCN.

    Attributes:
        n_ui_layers: propagation steps on the user-item graph, at least 0.
        n_layers: propagation steps on the item-item graphs, at least 0.
        knn_k: neighbours in the item-item graphs, at least 1.
        reg_weight: weight of the squared norms, divided by `train_batch_size`.
        cl_loss: weight of the contrastive terms, at least 0.
        temperature: of the contrastive terms, above 0.
        lr_decay: factor on the learning rate over every 50 epochs, in (0, 1].
    """

    n_ui_layers: int = Field(2, ge=0)
    n_layers: int = Field(1, ge=0)
    knn_k: int = Field(10, ge=1)
    reg_weight: float = Field(1e-4, ge=0)
    cl_loss: float = Field(0.01, ge=0)
    temperature: float = Field(0.2, gt=0)
    lr_decay: float = Field(0.96, gt=0, le=1)


class MGCN(CentralizedModel):
    """Score (C + side)_u . (C + side)_i. Degrees of 0 give 0; a pair that occurs twice weighs 2."""

    Params = MGCNParams
    params: MGCNParams
    needs_modalities = 1

    def __init__(self, config: HostConfig, dataset: Any) -> None:
        super().__init__(config, dataset)
        d = self.params.embedding_size
        self.user, self.item = (xavier(n, d) for n in self.shape)
        self.tables = nn.ParameterList([feature_table(m) for m in self.modalities])
        self.towers = nn.ModuleList([nn.Linear(m.dim, d) for m in self.modalities])
        self.purifiers = nn.ModuleList([_gate(d) for _ in self.modalities])
        self.preferences = nn.ModuleList([_gate(d) for _ in self.modalities])
        self.query = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, 1, bias=False))
        block = normalised(interactions(self.train_users, self.train_items, self.shape, "add"))
        self.graph = Propagation(bipartite(block))
        self.to_users = Propagation(block)
        k = self.params.knn_k
        graphs = [item_graph(torch.from_numpy(m.matrix), k, weighted=True) for m in self.modalities]
        self.item_graphs = nn.ModuleList([Propagation(graph) for graph in graphs])

    def views(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the collaborative view C and the side view, both `[n_users + n_items, d]`."""
        collaborative = self.graph.layer_mean(torch.cat([self.user, self.item]), self.params.n_ui_layers)
        modal = [self._modality(m) for m in range(len(self.tables))]
        weights = torch.softmax(torch.cat([self.query(e) for e in modal], dim=1), dim=1)
        common = torch.stack([weights[:, m : m + 1] * e for m, e in enumerate(modal)]).sum(dim=0)
        special = [(e - common) * self.preferences[m](collaborative) for m, e in enumerate(modal)]
        return collaborative, (torch.stack(special).sum(dim=0) + common) / (len(modal) + 1)

    def _modality(self, m: int) -> torch.Tensor:
        items: torch.Tensor = self.item * self.purifiers[m](self.towers[m](self.tables[m]))
        for _ in range(self.params.n_layers):
            items = self.item_graphs[m](items)
        return torch.cat([self.to_users(items), items])

    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        collaborative, side = self.views()
        users, items = (collaborative + side).split(self.shape)
        return users, items

    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Compute BPR + reg_weight * squared norms / train_batch_size + cl_loss * InfoNCE of the side view against C."""
        collaborative, side = self.views()
        all_users, all_items = (collaborative + side).split(self.shape)
        u, i, j = all_users[users], all_items[positives], all_items[negatives]
        squared = 0.5 * (u.square().sum() + i.square().sum() + j.square().sum()) / self.params.train_batch_size
        total: torch.Tensor = log_bpr((u * i).sum(dim=1), (u * j).sum(dim=1)) + self.params.reg_weight * squared
        if self.params.cl_loss:
            contrast = torch.stack([self._contrast(side, collaborative, r) for r in (positives + self.shape[0], users)])
            total = total + self.params.cl_loss * contrast.sum()
        return total

    def _contrast(self, side: torch.Tensor, collaborative: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        distinct, counts = torch.unique(rows, return_counts=True)
        return info_nce(side[distinct], collaborative[distinct], self.params.temperature, counts)


def _gate(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
