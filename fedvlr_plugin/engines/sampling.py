"""What a client trains on: positives and sampled negatives of each local epoch, cut into mini-batches.

The n_u training positives of a client are joined each epoch by `negatives` draws per positive, with replacement,
uniform over the pool minus the client's history (algorithm.md section 6). A draw is a function of
(seed, round, epoch, client, index) only, see `rng`. The r-th item outside a sorted history h is
`r + #{k : h_k - k <= r}`, found without rejection by one ragged binary search, or looked up where the sampler of a
block is kept from round to round and the lists of all outside items are small.

Local steps are the mini-batches of a shuffled epoch. The samples of client c in the k-th step are those whose place in
the client's shuffled epoch is in [k * batch_size, (k + 1) * batch_size). They are shuffled by 32 random bits each, ties by
their place before, and only where a client has several batches: otherwise the order has no effect. Clients with several
batches are a prefix of the block (`histories`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fedvlr_plugin.config import Protocol
from fedvlr_plugin.engines.compiled.available import compiled_on
from fedvlr_plugin.engines.histories import Histories, HistoryBlock, indptr_of, spread
from fedvlr_plugin.rng import Stream, below_premixed, derive, keys_of, premix, sort_keys_premixed, unsigned

MOST_LISTED = 16 * 2**20
NONE, NO_LISTS, NO_LABELS = np.zeros(0, np.int64), np.zeros(0, np.int32), torch.zeros(0).numpy()
Samples = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]  # items, labels, positives of pairs


@dataclass(frozen=True)
class Step:
    """One local step of the first `clients` clients of a block, ragged over K samples.

    Attributes:
        clients: how many clients of the block (a prefix) take this step.
        indptr: `[clients + 1]`, client c's samples are `indptr[c]:indptr[c + 1]`; every one has at least one.
        owner: `[K]`, position of each sample's client in the block.
        items: `[K]` item ids; with pairs, the negatives.
        labels: `[K]` 1 for positives, 0 for negatives; None with pairs.
        positives: `[K]` the positive of each pair; None without pairs.
        share: `[clients]`, 1 / number of samples, so that weighted sums are batch means.
        first_cells: `[K]`, owner * n_items.
        full: how many of the clients (a prefix) have samples that fill much of the catalogue, see `batches`.
    """

    clients: int
    indptr: torch.Tensor
    owner: torch.Tensor
    items: torch.Tensor
    labels: torch.Tensor | None
    positives: torch.Tensor | None
    share: torch.Tensor
    first_cells: torch.Tensor
    full: int = 0

    def cells(self) -> torch.Tensor:
        """`[K]`, owner * n_items + item of each sample."""
        return self.items + self.first_cells


class Sampler:
    """Draws the samples of blocks of clients.

    Args:
        histories: training histories by slot.
        protocol: number of negatives and their pool.
        batch_size: samples (pairs, with `pairs`) per local step at most.
        seed: of the run.
        pairs: draw (positive, negative) pairs for the BPR loss instead of labelled samples.
    """

    def __init__(
        self, histories: Histories, protocol: Protocol, batch_size: int, seed: int, pairs: bool, dtype: torch.dtype
    ) -> None:
        self.histories, self.batch_size, self.seed, self.pairs, self.dtype = histories, batch_size, seed, pairs, dtype
        self.negatives = protocol.negatives
        self.pool: torch.Tensor | None = None
        self.pool_size = histories.n_items
        if protocol.negative_pool == "train_items":
            self.pool = histories.trained
            self.pool_size = len(self.pool)

    def samples_per_epoch(self) -> torch.Tensor:
        """`[n_slots]`: samples (or pairs) of one local epoch."""
        sizes = self.histories.sizes
        drawn = torch.where(self.pool_size > sizes, sizes * self.negatives, 0)
        return drawn if self.pairs else sizes + drawn

    def steps_per_epoch(self) -> torch.Tensor:
        """`[n_slots]`: local steps of one epoch."""
        return -(-self.samples_per_epoch() // self.batch_size)

    def block(self, slots: torch.Tensor, kept: bool = False) -> BlockSampler:
        """The sampler of one block; `slots` ascending, each with at least one sample; `kept` over many rounds."""
        lists = kept and self.histories.n_slots * self.pool_size <= MOST_LISTED
        return BlockSampler(self, slots, lists)


class DrawnAt(NamedTuple):
    """What the tensor operations of a draw need of each drawn sample, `[K]` each."""

    owner: torch.Tensor
    mixed: torch.Tensor
    bound: torch.Tensor
    list_begin: torch.Tensor


class BlockSampler(HistoryBlock):
    """Samples of one block of clients. What does not change from epoch to epoch is worked out once, here."""

    def __init__(self, sampler: Sampler, slots: torch.Tensor, lists: bool = False) -> None:
        histories = sampler.histories
        super().__init__(histories, slots)
        self.sampler = sampler
        self.users = histories.order[slots]
        device = histories.device
        sizes = histories.sizes[slots]
        self.bound = sampler.pool_size - sizes
        ranks = self.history_items if sampler.pool is None else torch.searchsorted(sampler.pool, self.history_items)
        within = torch.arange(len(ranks), device=device) - self.history_indptr[self.history_owner]
        self.gaps = ranks - within
        self.drawn = torch.where(self.bound > 0, sizes * sampler.negatives, 0)
        self.outside: torch.Tensor | None = None
        self.outside_indptr = indptr_of(self.bound)
        if lists:
            free = torch.ones(len(slots), sampler.pool_size, dtype=torch.bool, device=device)
            free[self.history_owner, ranks] = False
            self.outside = free.nonzero()[:, 1].to(torch.int32)
        counts = self.drawn if sampler.pairs else sizes + self.drawn
        self.batches = Batches(counts, sampler.batch_size, histories.n_items, sampler.dtype)
        self.n_samples = int(counts.sum())

    # what follows is for the tensor operations only; the compiled loop does without

    @functools.cached_property
    def source(self) -> torch.Tensor:
        """`[K]`: where each sample stands among all positives followed by all negatives (of pairs: all negatives)."""
        device, counts = self.users.device, self.batches.counts
        source = torch.arange(self.n_samples, device=device)
        if self.sampler.pairs:
            return source
        sizes, begin = torch.diff(self.history_indptr), indptr_of(counts)[:-1]
        negatives = len(self.history_items) + indptr_of(self.drawn)[:-1]
        moved = torch.stack([self.history_indptr[:-1] - begin, negatives - sizes - begin])
        return source + torch.repeat_interleave(moved.t().flatten(), torch.stack([sizes, self.drawn], 1).flatten())

    @functools.cached_property
    def _drawn_at(self) -> DrawnAt:
        device = self.users.device
        owner = torch.repeat_interleave(torch.arange(len(self.users), device=device), self.drawn)
        index = torch.arange(len(owner), device=device) - indptr_of(self.drawn)[owner]
        return DrawnAt(owner, premix(index), self.bound[owner], self.outside_indptr[owner])

    def draw(self, round: int, epoch: int) -> torch.Tensor:
        """Negatives of one epoch, item ids ragged by client, `[sum of drawn]`."""
        items = self._draw(derive(self.sampler.seed, Stream.NEGATIVES, round, epoch))
        return items if self.sampler.pool is None else self.sampler.pool.index_select(0, items)

    def _draw(self, base: int) -> torch.Tensor:
        drawn = self._drawn_at
        each = spread(keys_of(base, self.users), self.drawn, drawn.owner)
        if self.outside is not None:
            place = below_premixed(each, drawn.mixed, drawn.bound, drawn.list_begin)
            return self.outside.index_select(0, place).to(torch.int64)
        rank = below_premixed(each, drawn.mixed, drawn.bound)
        # one search for all clients: the keys of client c begin at c times the stride
        stride = self.sampler.pool_size + 1
        keys = self.history_owner * stride + self.gaps
        return (
            rank + torch.searchsorted(keys, drawn.owner * stride + rank, right=True) - self.history_indptr[drawn.owner]
        )

    def epoch(self, round: int, epoch: int) -> Iterator[Step]:
        """The local steps of one epoch, in order."""
        items, labels, positives = (self._compiled if compiled_on(self.users.device) else self._plain)(round, epoch)
        for cut in self.batches.cuts:
            part = slice(cut.begin, cut.begin + len(cut.owner))
            yield Step(
                cut.clients,
                cut.indptr,
                cut.owner,
                items[part],
                None if labels is None else labels[part],
                None if positives is None else positives[part],
                cut.share,
                cut.first_cells,
                cut.full,
            )

    def _plain(self, round: int, epoch: int) -> Samples:
        """All samples in the order of the steps, by tensor operations."""
        drawn, source = self.draw(round, epoch), self.source
        if self.batches.several:
            base = derive(self.sampler.seed, Stream.SHUFFLE, round, epoch)
            source = self.batches.shuffled(source, base, self.users)
        if self.sampler.pairs:
            paired = self.history_items.index_select(0, source // self.sampler.negatives)
            return drawn.index_select(0, source), None, paired
        labels = (source < len(self.history_items)).to(self.sampler.dtype)
        return torch.cat([self.history_items, drawn]).index_select(0, source), labels, None

    def _compiled(self, round: int, epoch: int) -> Samples:
        """The same by the compiled loop."""
        from fedvlr_plugin.engines.compiled import sampling

        sampler, pairs = self.sampler, self.sampler.pairs
        items = torch.empty(self.n_samples, dtype=torch.int64)
        labels = None if pairs else torch.empty(self.n_samples, dtype=sampler.dtype)
        positives = torch.empty_like(items) if pairs else None
        places, place_indptr = self.batches.places
        sampling.epoch(
            (
                np.uint64(derive(sampler.seed, Stream.NEGATIVES, round, epoch)),
                np.uint64(derive(sampler.seed, Stream.SHUFFLE, round, epoch)),
            ),
            unsigned(self.users),
            self.history_items.numpy(),
            self.history_indptr.numpy(),
            self.gaps.numpy(),
            unsigned(self.bound),
            NO_LISTS if self.outside is None else self.outside.numpy(),
            self.outside_indptr.numpy(),
            NONE if sampler.pool is None else sampler.pool.numpy(),
            sampler.negatives,
            sampler.batch_size,
            places.numpy(),
            place_indptr.numpy(),
            items.numpy(),
            NO_LABELS if labels is None else labels.numpy(),
            NONE if positives is None else positives.numpy(),
        )
        return items, labels, positives


_LOWER = 0xFFFFFFFF
WHOLE_UNTIL = 4  # items of the catalogue per sample up to which products of everything are cheaper than a compiled loop


class StepLayout(NamedTuple):
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
        size: samples of a batch at most. n_items: of the catalogue. dtype: of `StepLayout.share`.

    Attributes:
        several: how many clients have several batches. shuffled_samples: samples of these. cuts: the steps, in order.
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
        plan, head = self._head_at, source[: self.shuffled_samples]
        keys = spread(keys_of(base, users[: self.several]), self.counts[: self.several], plan.owner)
        packed = sort_keys_premixed(keys, plan.mixed, head)
        if packed.device.type != "cpu":
            upper = (packed >> 32).bitwise_and_(_LOWER)
            shuffled = head.index_select(0, torch.argsort((plan.owner << 32).add_(upper), stable=True))
        else:
            # a plain sort of each client's numbers is several times faster than argsort
            numbers = unsigned(packed)
            for begin, end in itertools.pairwise(self.indptr.tolist()):
                numbers[begin:end].sort()
            shuffled = packed.bitwise_and_(_LOWER)
        return torch.cat([shuffled, source[len(shuffled) :]]).index_select(0, self._by_step)

    @functools.cached_property
    def _head_at(self) -> ShufflePlan:
        device = self.counts.device
        owner = torch.repeat_interleave(torch.arange(self.several, device=device), self.counts[: self.several])
        return ShufflePlan(owner, premix(torch.arange(len(owner), device=device) - self.indptr[owner]))

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
        exists = torch.arange(len(self.cuts), device=begins.device) < batches[:, None]
        return begins[exists], indptr_of(batches)


class ShufflePlan(NamedTuple):
    """What the tensor operations of a shuffle need of each sample of the clients with several batches."""

    owner: torch.Tensor
    mixed: torch.Tensor


def _cut(counts: torch.Tensor, size: int, n_items: int, dtype: torch.dtype) -> list[StepLayout]:
    """The steps of an epoch."""
    cuts, begin = [], 0
    for k in range(-(-int(counts.max()) // size) if len(counts) else 0):
        clients = int((counts > k * size).sum())
        part = (counts[:clients] - k * size).clamp(max=size)
        owner = torch.repeat_interleave(torch.arange(clients, device=counts.device), part)
        full = int(torch.cumprod(part * WHOLE_UNTIL >= n_items, 0).sum())
        cuts.append(
            StepLayout(clients, begin, full, indptr_of(part), owner, part.to(dtype).reciprocal(), owner * n_items)
        )
        begin += len(owner)
    return cuts
