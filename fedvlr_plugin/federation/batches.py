"""How the samples of a block's clients fall into local steps: mini-batches of a shuffled epoch.

The samples of client c are those of the k-th step whose place in the client's shuffled epoch is in
[k * batch_size, (k + 1) * batch_size). They are shuffled by 32 random bits each, ties by their place before, and
only where a client has several batches: otherwise the order is of no consequence. Clients with several batches
are a prefix of the block (`histories`). Imports `ragged`, `rng`.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import torch

from fedvlr_plugin.federation.ragged import indptr_of, spread
from fedvlr_plugin.rng import keys_of, premix, sort_keys_premixed, unsigned

_LOWER = 0xFFFFFFFF
WHOLE_UNTIL = 4  # items of the catalogue per sample up to which products of everything are cheaper than a compiled loop


class Cut(NamedTuple):
    """A step's place in an epoch: its clients, where its samples begin in the order of steps, and their layout.

    `full` of the clients, a prefix, have samples that fill much of the catalogue.
    """

    clients: int
    begin: int
    full: int
    indptr: torch.Tensor
    owner: torch.Tensor
    share: torch.Tensor
    first_cells: torch.Tensor


class Batches:
    """The steps of an epoch of one block.

    Args:
        counts: `[B]` samples of each client, in an order in which those with several batches stand first.
        size: samples of a batch at most. n_items: of the catalogue. dtype: of `Cut.share`.

    Attributes:
        several: how many clients have several batches. shuffled_samples: theirs. cuts: the steps, in order.
    """

    def __init__(self, counts: torch.Tensor, size: int, n_items: int, dtype: torch.dtype) -> None:
        self.counts, self.size = counts, size
        self.several = int((counts > size).sum())
        self.indptr = indptr_of(counts[: self.several])
        self.shuffled_samples = int(self.indptr[-1])
        self.cuts = _cut(counts, size, n_items, dtype)

    def shuffled(self, source: torch.Tensor, base: int, users: torch.Tensor) -> torch.Tensor:
        """`[K]`: `source`, shuffled within each client of several batches, in the order of the steps.

        Args:
            source: `[K]` what stands for each sample, ragged by client, ascending within a client, below 2**32.
            base: `rng.derive` of everything but the client. users: `[B]` ids of the clients.
        """
        at, head = self._head_at, source[: self.shuffled_samples]
        keys = spread(keys_of(base, users[: self.several]), self.counts[: self.several], at.owner)
        packed = sort_keys_premixed(keys, at.mixed, head)
        if packed.device.type != "cpu":
            upper = (packed >> 32).bitwise_and_(_LOWER)
            shuffled = head.index_select(0, torch.argsort((at.owner << 32).add_(upper), stable=True))
        else:
            # a plain sort of each client's numbers is several times faster than argsort
            numbers = unsigned(packed)
            for begin, end in itertools.pairwise(self.indptr.tolist()):
                numbers[begin:end].sort()
            shuffled = packed.bitwise_and_(_LOWER)
        return torch.cat([shuffled, source[len(shuffled) :]]).index_select(0, self._by_step)

    @functools.cached_property
    def _head_at(self) -> HeadAt:
        device = self.counts.device
        owner = torch.repeat_interleave(torch.arange(self.several, device=device), self.counts[: self.several])
        return HeadAt(owner, premix(torch.arange(len(owner), device=device) - self.indptr[owner]))

    @functools.cached_property
    def _by_step(self) -> torch.Tensor:
        """`[K]`: which sample (in the order of clients) stands where in the order of steps."""
        starts, places = indptr_of(self.counts), []
        for k, cut in enumerate(self.cuts):
            moved = starts[: cut.clients] + k * self.size - cut.indptr[:-1]
            places.append(torch.arange(len(cut.owner), device=starts.device) + moved[cut.owner])
        return torch.cat(places)

    @functools.cached_property
    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the batches of each client begin in the order of steps, ragged by client, and their `indptr [B + 1]`."""
        begins = torch.zeros(len(self.counts), len(self.cuts), dtype=torch.int64, device=self.counts.device)
        for k, cut in enumerate(self.cuts):
            begins[: cut.clients, k] = cut.begin + cut.indptr[:-1]
        batches = -(-self.counts // self.size)
        there = torch.arange(len(self.cuts), device=begins.device) < batches[:, None]
        return begins[there], indptr_of(batches)


class HeadAt(NamedTuple):
    """What the tensor operations of a shuffle want to know of each sample of the clients of several batches."""

    owner: torch.Tensor
    mixed: torch.Tensor


def _cut(counts: torch.Tensor, size: int, n_items: int, dtype: torch.dtype) -> list[Cut]:
    """The steps of an epoch."""
    cuts, begin = [], 0
    for k in range(-(-int(counts.max()) // size) if len(counts) else 0):
        clients = int((counts > k * size).sum())
        part = (counts[:clients] - k * size).clamp(max=size)
        owner = torch.repeat_interleave(torch.arange(clients, device=counts.device), part)
        full = int(torch.cumprod(part * WHOLE_UNTIL >= n_items, 0).sum())
        cuts.append(Cut(clients, begin, full, indptr_of(part), owner, part.to(dtype).reciprocal(), owner * n_items))
        begin += len(owner)
    return cuts
