"""The distinct (client, item) cells of a block's local steps, for rows that belong to one client alone.

A step's samples may name an item of a client twice (negatives are drawn with replacement). Summed up by cell they
give the sample weights W and positive weights P of algorithm.md section 11, and each private row is read and stepped
once. Dense blocks find their cells by counting over all clients x items, sparse ones by sorting; the result is the
same, ascending by client and item. Imports `ragged`, `samples`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fedvlr_plugin.federation.ragged import indptr_of
from fedvlr_plugin.federation.samples import Step

COUNT_UP_TO = 12


class Cells(NamedTuple):
    """The D cells of one step of the first `clients` clients of a block.

    Attributes:
        indptr: `[clients + 1]`. owner, items: `[D]`. at: `[D]`, place among the keys of all steps.
        weight: `[D]` samples at the cell over samples of the client's batch. positive: `[D]`, of those the positives'.
        share: `[clients]`, 1 / number of the client's cells.
    """

    clients: int
    indptr: torch.Tensor
    owner: torch.Tensor
    items: torch.Tensor
    at: torch.Tensor
    weight: torch.Tensor
    positive: torch.Tensor
    share: torch.Tensor


def distinct_cells(steps: Sequence[Step], n_clients: int, n_items: int) -> tuple[torch.Tensor, list[Cells]]:
    """`keys [T]` = client * n_items + item of everything that the steps touch, ascending, and each step's cells."""
    found = [_cells(step, n_items) for step in steps]
    if n_clients * n_items <= COUNT_UP_TO * max(len(step.items) for step in steps):
        seen = torch.zeros(n_clients * n_items, dtype=torch.bool, device=found[0][0].device)
        for distinct, _, _ in found:
            seen[distinct] = True
        keys = seen.nonzero()[:, 0]
        rank = torch.cumsum(seen, 0)
        places = [rank.index_select(0, distinct).sub_(1) for distinct, _, _ in found]
    else:
        keys = torch.unique(torch.cat([distinct for distinct, _, _ in found]))
        places = [torch.searchsorted(keys, distinct) for distinct, _, _ in found]
    out = []
    for step, (distinct, samples, positives), at in zip(steps, found, places, strict=True):
        owner = torch.div(distinct, n_items, rounding_mode="floor")
        counts = torch.bincount(owner, minlength=step.clients)
        indptr = indptr_of(counts)
        each = step.share.index_select(0, owner)
        share = counts.to(each.dtype).reciprocal()
        out.append(
            Cells(step.clients, indptr, owner, distinct - owner * n_items, at, samples * each, positives * each, share)
        )
    return keys, out


def _cells(step: Step, n_items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step's distinct keys `[D]`, ascending, and how many samples and positives there are at each."""
    if step.labels is None:
        raise RuntimeError("cells are of labelled samples, not of pairs")
    keys = step.cells()
    positive = keys[step.labels > 0]
    if step.clients * n_items <= COUNT_UP_TO * len(keys):
        counts = torch.bincount(keys, minlength=step.clients * n_items)
        distinct = counts.nonzero()[:, 0]
        samples = counts.index_select(0, distinct)
        of = torch.bincount(positive, minlength=len(counts)).index_select(0, distinct)
        return distinct, samples, of
    distinct, samples = torch.unique(keys, return_counts=True)
    of = torch.bincount(torch.searchsorted(distinct, positive), minlength=len(distinct))
    return distinct, samples, of
