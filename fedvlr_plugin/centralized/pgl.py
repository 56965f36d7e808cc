"""PGL: trains on a principal sub-graph, scores with the full graph (`baselines.md` section 5). Yu et al., AAAI 2025."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import dropout, normalize

from fedvlr_plugin.centralized.base import CentralizedModel, CentralizedParams, HostConfig, feature_table, xavier
from fedvlr_plugin.centralized.graphs import (
    SMALL_DEGREE,
    Graph,
    Ids,
    Propagation,
    bipartite,
    blend,
    edge_weights,
    interactions,
    item_graph,
    normalised,
    sample_edges,
    truncated_svd,
)
from fedvlr_plugin.centralized.losses import info_nce, log_bpr


class PGLParams(CentralizedParams):
    """Settings of PGL.

    Attributes:
        n_ui_layers: propagation steps on the user-item graph, at least 0.
        n_mm_layers: propagation steps on the item-item graph, at least 0.
        knn_k: neighbours in the item-item graph, at least 1.
        mm_image_weight: share of the modalities other than text in the item-item graph, in 0..1.
        mode: `local` draws a sub-graph each epoch; `global` uses that of the truncated SVD in all epochs.
        keep_rate: share of the edges that `local` keeps, in (0, 1].
        dropout: rate in the contrastive term, in [0, 1).
        reg_weight: weight of the contrastive term, at least 0.
        temperature: of the contrastive term, above 0.
        lr_decay: factor on the learning rate over every 50 epochs, in (0, 1].
    """

    n_ui_layers: int = Field(2, ge=0)
    n_mm_layers: int = Field(1, ge=0)
    knn_k: int = Field(10, ge=1)
    mm_image_weight: float = Field(0.1, ge=0, le=1)
    mode: Literal["local", "global"] = "local"
    keep_rate: float = Field(0.3, gt=0, le=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    reg_weight: float = Field(0.0, ge=0)
    temperature: float = Field(0.2, gt=0)
    lr_decay: float = Field(0.96, gt=0, le=1)


class PGL(CentralizedModel):
    """Score g_u . (g_i + h_i), all vectors of `embedding_size` per modality; no item ID table.

    If `text` is one of several modalities, its share of the item-item graph is 1 - `mm_image_weight`, and the others
    share the rest equally; otherwise all shares are equal.
    """

    Params = PGLParams
    params: PGLParams
    needs_modalities = 1

    def __init__(self, config: HostConfig, dataset: Any) -> None:
        super().__init__(config, dataset)
        d = self.params.embedding_size
        self.users = nn.ParameterList([xavier(self.shape[0], d) for _ in self.modalities])
        self.tables = nn.ParameterList([feature_table(m) for m in self.modalities])
        self.towers = nn.ModuleList([nn.Linear(m.dim, d) for m in self.modalities])
        self.adjacency = self._adjacency(slice(None))
        self.graph = Propagation(self.adjacency)
        graphs = [item_graph(torch.from_numpy(m.matrix), self.params.knn_k, weighted=False) for m in self.modalities]
        shares = modality_shares([m.name for m in self.modalities], self.params.mm_image_weight)
        self.item_graph = Propagation(blend(graphs, shares))
        self.edge_weights = edge_weights(self.train_users, self.train_items)
        self.sub_graph: Propagation | None = None

    def _adjacency(self, rows: slice | Ids) -> Graph:
        pairs = interactions(self.train_users[rows], self.train_items[rows], self.shape, "collapse")
        return bipartite(normalised(pairs, SMALL_DEGREE))

    def draw_sub_graph(self) -> None:
        """Draw the sub-graph of the next epoch (mode local), or compute that of the run (mode global)."""
        if self.params.mode == "global":
            if self.sub_graph is None:
                self.sub_graph = Propagation(truncated_svd(self.adjacency)).to(self.graph.matrix.device)
            return
        count = max(1, int(self.params.keep_rate * len(self.train_users)))
        rows = sample_edges(self.edge_weights, count).numpy()
        self.sub_graph = Propagation(self._adjacency(rows)).to(self.graph.matrix.device)

    def train(self, mode: bool = True) -> PGL:
        """Set training mode, as in torch, and draw a sub-graph: every training loop calls this once an epoch."""
        super().train(mode)
        if mode:
            self.draw_sub_graph()
        return self

    def _propagate(self, graph: Propagation) -> tuple[torch.Tensor, torch.Tensor]:
        towers = zip(self.towers, self.tables, strict=True)
        items = torch.cat([normalize(tower(table), dim=1) for tower, table in towers], dim=1)
        start = torch.cat([torch.cat(list(self.users), dim=1), items])
        users, reached = graph.layer_mean(start, self.params.n_ui_layers).split(self.shape)
        for _ in range(self.params.n_mm_layers):
            items = self.item_graph(items)
        return users, reached + items

    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._propagate(self.graph)

    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Compute BPR + reg_weight / 2 * InfoNCE between two dropout samples of the batch's vectors."""
        if self.sub_graph is None:
            self.draw_sub_graph()
        all_users, all_items = self._propagate(self.sub_graph or self.graph)
        u, i, j = all_users[users], all_items[positives], all_items[negatives]
        total = log_bpr((u * i).sum(dim=1), (u * j).sum(dim=1))
        if self.params.reg_weight:
            contrast = self._contrast(u) + self._contrast(i)
            total = total + self.params.reg_weight * 0.5 * contrast
        return total

    def _contrast(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (dropout(x, self.params.dropout, training=True) for _ in range(2))
        return info_nce(first, second, self.params.temperature)


def modality_shares(names: list[str], others: float) -> list[float]:
    """Compute the weights of the modalities in the item-item graph, sum 1.

    Args:
        names: of the modalities.
        others: share of all modalities but `text`, in 0..1. It applies if `text` is one of several modalities;
            otherwise all weights are equal.
    """
    if "text" not in names or len(names) == 1:
        return [1.0 / len(names)] * len(names)
    return [1.0 - others if name == "text" else others / (len(names) - 1) for name in names]
