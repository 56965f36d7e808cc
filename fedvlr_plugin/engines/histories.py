"""Training histories as the engines hold them: by slot, ragged, on the engine's device.

Clients stand in *slots*, ordered by the size of their history, largest first (ties by user id). So clients with
several mini-batches are a prefix of any block, and blocks waste little padding.

Below are the three sparse products over ragged samples that a closed-form step needs (algorithm.md section 11). A block's
samples are pairs (owner c, item i) with weights r, sorted by owner. They are the non-zeros of a
residual matrix R [B, n] that is never built:

    scores:   s_k = Q_{c(k)} . F_{i(k)}            (sampled dense-dense product)
    forward:  (R F)_c = sum_k r_k F_{i(k)}         (sparse times dense)
    uplink:   (R^T Q)_i += sum_k r_k Q_{c(k)}      (its transpose)

On a CPU the first is torch's sampled_addmm and the second its embedding_bag, both several times faster than
indexing; elsewhere indexing is used for the first. Blocks so dense that the whole product is cheaper take that
(sampled_addmm also refuses more samples than the block has cells).
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
import torch.nn.functional as nnf

from fedvlr_plugin.data.interactions import Interactions


class Histories:
    """Training histories in slot order, on the device of the engine.

    Attributes:
        n_users: clients of the federation.
        n_slots: clients of this process, all of them by default.
        order: `[n_slots]`, user id of each slot.
        slot_of: `[n_users]`, its inverse; -1 for clients of other processes.
        sizes: `[n_slots]`, n_u by slot.
        items, indptr: ragged histories by slot, ascending within a client.
        weights: `[n_users]`, n_u by user.
        trained: ids of items that occur in any history, ascending.
    """

    def __init__(self, interactions: Interactions, device: torch.device, users: torch.Tensor | None = None) -> None:
        _silence_csr_warning()
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


DENSE_FROM = 25
DENSE_UNTIL = 8  # cells per sample up to which whole products are cheaper than sampled ones, all the way


def dots(
    q: torch.Tensor, table: torch.Tensor, indptr: torch.Tensor, owner: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """`[K]`: q `[B, w]` of each sample's owner times table `[n, w]` at its item."""
    if DENSE_UNTIL * len(items) > len(q) * len(table):
        return (q @ table.t()).view(-1).index_select(0, owner * len(table) + items)
    if q.device.type != "cpu":
        return (q[owner] * table[items]).sum(1)
    pattern = _csr(indptr, items, q.new_zeros(len(items)), len(q), len(table))
    out: torch.Tensor = torch.sparse.sampled_addmm(pattern, q, table.t(), beta=0.0).values()
    return out


def _csr(indptr: torch.Tensor, items: torch.Tensor, values: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.sparse_csr_tensor(indptr, items, values, (rows, columns), check_invariants=False)


@functools.cache
def _silence_csr_warning() -> None:
    """Take torch's warning that CSR is a beta feature, which comes once per process, before threads share the filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), 1, 1)


def bags(table: torch.Tensor, indptr: torch.Tensor, items: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`[B, w]`: the weighted sum of table rows over each owner's samples; zero for an owner without any."""
    return nnf.embedding_bag(items, table, indptr, mode="sum", per_sample_weights=weights, include_last_offset=True)


def scatter(
    out: torch.Tensor, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor
) -> None:
    """Add weight times q `[B, w]` of the owner to `out [n, w]` at the item of each sample, in place.

    Where the block is dense enough the residual matrix is built after all and multiplied: a matrix product does
    25 times the arithmetic of a scatter in the same time.
    """
    if len(items) * DENSE_FROM > len(q) * len(out):
        residual = q.new_zeros(len(q) * len(out)).index_add_(0, owner * len(out) + items, weights)
        out.addmm_(residual.view(len(q), len(out)).t(), q)
        return
    rows = q.index_select(0, owner)
    out.index_add_(0, items, rows.mul_(weights[:, None]))


def totals(values: torch.Tensor, indptr: torch.Tensor) -> torch.Tensor:
    """`[B]`: sums of `values [K]` over each owner's samples."""
    return torch.segment_reduce(values, "sum", offsets=indptr)


def indptr_of(counts: torch.Tensor) -> torch.Tensor:
    """`[B + 1]`: where each owner's samples begin, from how many each has `[B]`; the last entry is their number."""
    out = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=out[1:])
    return out


def spread(values: torch.Tensor, counts: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """`[K]`: `values [B]` of each sample's owner, for `counts [B]` samples of each and `owner [K]`, sorted."""
    if values.device.type != "cpu":
        return values.index_select(0, owner)
    return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
