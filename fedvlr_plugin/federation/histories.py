"""Training histories as the engines hold them: by slot, ragged, on the engine's device.

Clients stand in *slots*, ordered by the size of their history, largest first (ties by user id). So clients with
several mini-batches are a prefix of any block, and blocks waste little padding. Imports `data` and `ragged`.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.federation.ragged import bags, indptr_of


class Histories:
    """Training histories in slot order, on the device of the engine.

    Attributes:
        n_users: clients of the federation. n_slots: clients of this process, all of them by default.
        order: `[n_slots]`, user id of each slot. slot_of: `[n_users]`, its inverse, -1 for other processes' clients.
        sizes: `[n_slots]` n_u by slot. items, indptr: ragged histories by slot, ascending within a client.
        weights: `[n_users]` n_u by user. trained: ids of items that occur in anyone's history, ascending.
    """

    def __init__(self, interactions: Interactions, device: torch.device, users: torch.Tensor | None = None) -> None:
        sizes = interactions.train_sizes
        self.weights = torch.from_numpy(sizes).to(device)
        self.trained = torch.from_numpy(np.unique(interactions.train_items)).to(device)
        order = np.argsort(-sizes, kind="stable")
        if users is not None:
            order = order[np.isin(order, users.numpy())]
        starts = np.repeat(interactions.train_indptr[:-1][order], sizes[order])
        indptr = np.concatenate([[0], np.cumsum(sizes[order])])
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], sizes[order])
        self.n_users, self.n_items = interactions.n_users, interactions.n_items
        self.order = torch.from_numpy(order).to(device)
        self.n_slots = len(order)
        self.slot_of = torch.full((self.n_users,), -1, dtype=torch.int64, device=device)
        self.slot_of[self.order] = torch.arange(self.n_slots, device=device)
        self.sizes = torch.from_numpy(sizes[order]).to(device)
        self.indptr = torch.from_numpy(indptr).to(device)
        self.items = torch.from_numpy(interactions.train_items[starts + within]).to(device)
        self.device = device

    def ragged(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Histories of the given slots: `indptr [B + 1]`, `owner [H]`, `items [H]`."""
        sizes = self.sizes[slots]
        indptr = indptr_of(sizes)
        owner = torch.repeat_interleave(torch.arange(len(slots), device=self.device), sizes)
        within = torch.arange(len(owner), device=self.device) - indptr[owner]
        return indptr, owner, self.items[self.indptr[slots][owner] + within]


class HistoryBlock:
    """Histories of a block of clients in any order: `indptr [B + 1]`, `owner [H]`, `items [H]`, ascending."""

    def __init__(self, histories: Histories, slots: torch.Tensor) -> None:
        self.slots = slots
        self.history_indptr, self.history_owner, self.history_items = histories.ragged(slots)

    def pool(self, table: torch.Tensor) -> torch.Tensor:
        """Pooled histories p_u `[B, width]`: means of `table [n_items, width]`, zero for an empty history."""
        sizes = torch.diff(self.history_indptr)
        share = sizes.clamp(min=1).to(table.dtype).reciprocal()[self.history_owner]
        return bags(table, self.history_indptr, self.history_items, share)
