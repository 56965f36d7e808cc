"""What a client trains on: positives and sampled negatives of each local epoch, cut into mini-batches.

The n_u training positives of a client are joined each epoch by `negatives` draws per positive, with replacement,
uniform over the pool minus the client's history (algorithm.md section 6). A draw is a function of
(seed, round, epoch, client, index) only, see `rng`. The r-th item outside a sorted history h is
`r + #{k : h_k - k <= r}`, found without rejection by one ragged binary search, or looked up where the sampler of a
block is kept from round to round and the lists of all outside items are small.

Clients stand in *slots*, ordered by the size of their history, largest first (ties by user id). So clients with
several mini-batches are a prefix of any block, and blocks waste little padding. Imports `rng`, `data`, `config`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fedvlr_plugin.config import Protocol
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.federation.ragged import bags
from fedvlr_plugin.rng import Stream, below_premixed, bits32_premixed, client_keys, premix

MOST_LISTED = 16 * 2**20


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
    """

    clients: int
    indptr: torch.Tensor
    owner: torch.Tensor
    items: torch.Tensor
    labels: torch.Tensor | None
    positives: torch.Tensor | None
    share: torch.Tensor

    def cells(self, n_items: int) -> torch.Tensor:
        """`[K]`, owner * n_items + item of each sample."""
        return torch.add(self.items, self.owner, alpha=n_items)


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
        indptr = _indptr(sizes)
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


class Cut(NamedTuple):
    """A step's place in an epoch: its clients, where its samples begin in the order of steps, and their layout."""

    clients: int
    begin: int
    indptr: torch.Tensor
    owner: torch.Tensor
    share: torch.Tensor


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
        self.stride = sampler.pool_size + 1
        self.keys = self.history_owner * self.stride + ranks - within
        drawn = torch.where(self.bound > 0, sizes * sampler.negatives, 0)
        clients = torch.arange(len(slots), device=device)
        self.drawn_owner = torch.repeat_interleave(clients, drawn)
        self.drawn_index = torch.arange(len(self.drawn_owner), device=device) - _indptr(drawn)[self.drawn_owner]
        self.drawn_bound = self.bound[self.drawn_owner]
        self.drawn_mixed = premix(self.drawn_index)
        self.drawn_base = self.drawn_owner * self.stride
        self.drawn_shift = self.history_indptr[self.drawn_owner]
        self.outside: torch.Tensor | None = None
        if lists:
            free = torch.ones(len(slots), sampler.pool_size, dtype=torch.bool, device=device)
            free[self.history_owner, ranks] = False
            self.outside = free.nonzero()[:, 1].to(torch.int32)
            self.drawn_list = _indptr(self.bound)[self.drawn_owner]
        counts = drawn if sampler.pairs else sizes + drawn
        self.counts = counts
        self.indptr = _indptr(counts)
        self.owner = torch.repeat_interleave(clients, counts)
        self.share = counts.to(sampler.dtype).reciprocal()
        self.several = int((counts > sampler.batch_size).sum())
        self.n_samples = len(self.owner)
        self.cuts, self.by_step = self._cut() if self.several else ([], self.owner[:0])
        head = self.owner[: int(self.indptr[self.several])]
        self.shuffle_mixed = premix(torch.arange(len(head), device=device) - self.indptr.index_select(0, head))
        if sampler.pairs:
            self.paired = self.history_items[self.drawn_shift + self.drawn_index // sampler.negatives]
        else:
            drawn_at = self.indptr[self.drawn_owner] + sizes[self.drawn_owner] + self.drawn_index
            positive_at = self.indptr[self.history_owner] + within
            # where each sample stands among all positives followed by all negatives
            self.source = torch.empty(self.n_samples, dtype=torch.int64, device=device)
            self.source[positive_at] = torch.arange(len(positive_at), device=device)
            self.source[drawn_at] = torch.arange(len(drawn_at), device=device) + len(positive_at)
            self.labels = torch.zeros(self.n_samples, dtype=sampler.dtype, device=device)
            self.labels[positive_at] = 1.0

    def draw(self, round: int, epoch: int) -> torch.Tensor:
        """Negatives of one epoch, item ids ragged by client, `[sum of drawn]`."""
        keys = client_keys(self.sampler.seed, Stream.NEGATIVES, round, epoch, self.users)
        rank = below_premixed(keys.index_select(0, self.drawn_owner), self.drawn_mixed, self.drawn_bound)
        if self.outside is not None:
            items = self.outside.index_select(0, rank.add_(self.drawn_list)).to(torch.int64)
        else:
            items = rank + torch.searchsorted(self.keys, self.drawn_base + rank, right=True) - self.drawn_shift
        return items if self.sampler.pool is None else self.sampler.pool[items]

    def epoch(self, round: int, epoch: int) -> Iterator[Step]:
        """The local steps of one epoch, in order."""
        drawn = self.draw(round, epoch)
        if self.sampler.pairs:
            items, labels, positives = drawn, None, self.paired
        else:
            items = torch.cat([self.history_items, drawn]).index_select(0, self.source)
            labels, positives = self.labels, None
        if not self.several:
            yield Step(len(self.slots), self.indptr, self.owner, items, labels, positives, self.share)
            return
        # one gather brings all samples into the order of the steps; each step is then a slice
        at = self._shuffle(round, epoch).index_select(0, self.by_step)
        items = items.index_select(0, at)
        labels = None if labels is None else labels.index_select(0, at)
        positives = None if positives is None else positives.index_select(0, at)
        for cut in self.cuts:
            part = slice(cut.begin, cut.begin + len(cut.owner))
            yield Step(
                cut.clients,
                cut.indptr,
                cut.owner,
                items[part],
                None if labels is None else labels[part],
                None if positives is None else positives[part],
                cut.share,
            )

    def _cut(self) -> tuple[list[Cut], torch.Tensor]:
        """The steps of an epoch, and which sample (in the order of clients) stands where in the order of steps."""
        size, cuts, places, begin = self.sampler.batch_size, [], [], 0
        for k in range(-(-int(self.counts.max()) // size)):
            clients = int((self.counts > k * size).sum())
            counts = (self.counts[:clients] - k * size).clamp(max=size)
            indptr = _indptr(counts)
            owner = torch.repeat_interleave(torch.arange(clients, device=counts.device), counts)
            within = torch.arange(len(owner), device=counts.device) - indptr[owner]
            places.append((self.indptr[:clients] + k * size)[owner] + within)
            cuts.append(Cut(clients, begin, indptr, owner, counts.to(self.sampler.dtype).reciprocal()))
            begin += len(owner)
        return cuts, torch.cat(places)

    def _shuffle(self, round: int, epoch: int) -> torch.Tensor:
        """A permutation of the block's samples that shuffles within each client of several batches only."""
        order = torch.arange(self.n_samples, device=self.owner.device)
        head = int(self.indptr[self.several])
        owner = self.owner[:head]
        keys = client_keys(self.sampler.seed, Stream.SHUFFLE, round, epoch, self.users)
        random = bits32_premixed(keys.index_select(0, owner), self.shuffle_mixed)
        if order.device.type != "cpu":
            order[:head] = torch.argsort((owner << 32).add_(random), stable=True)
            return order
        # random bits above, position below: a plain sort of each client's numbers, several times faster than argsort
        packed = random.bitwise_left_shift_(32).add_(order[:head]).numpy().view(np.uint64)
        bounds = self.indptr[: self.several + 1].tolist()
        for begin, end in itertools.pairwise(bounds):
            packed[begin:end].sort()
        order[:head] = torch.from_numpy(packed.view(np.int64)).bitwise_and_(0xFFFFFFFF)
        return order


def _indptr(counts: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=out[1:])
    return out
