"""FedEASE: the closed form of EASE as a federated model that needs one round and no training at the clients.

    1  count    every client adds its 0/1 history to a sum over clients; items with fewer than k consumers are dropped
    2  gather   every client adds the upper triangle of x_u x_u^T over the items kept; the server learns G = sum_u
    3  solve    at the server P = (G + a T T^T + lambda I)^-1, B_ij = -P_ij / P_jj, B_ii = 0 (a = 0 without content)
    4  fetch    every client fetches the rows of B of its own history and scores x_u B at home

lambda (and a) are chosen by validation NDCG@50, which every client computes at home, as the best round of a trained
model is.

What the server learns is G. The row of an item with a single consumer is that consumer's history, hence the minimum
count; a pair of kept items that one user alone has in common still shows. With `conditions.secure` both sums are secure
sums, and the server sees nothing but them; without it, it sees each upload. With `conditions.privacy` there is no
exact count: each triangle, as one vector, is clipped to C, noise goes on every entry of the sum, and the one
round is what epsilon pays for. Fetching only one's own rows (`download: own`) tells a server that looks which items
they are; `download: all` does not, and costs the whole table. Both are counted.

The sum is exact without noise: quantised counts are rounded back to whole numbers. G is made in blocks of columns, so
that one matrix `[n, n]` is all that is ever held (`centralized.closed_form`); a secure sum is made in blocks too, with
fresh masks for each and the same clients lost in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from pydantic import Field

from fedvlr_plugin.aggregation.rule import Cohort
from fedvlr_plugin.aggregation.secure import SecureSum
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.centralized.closed_form import GramMatrix, check_memory
from fedvlr_plugin.config import Frozen, Privacy, RunSpec, Secure
from fedvlr_plugin.data.interactions import IntArray, Interactions
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.evaluation.content import history_matrix
from fedvlr_plugin.privacy.guarantee import guarantee_of
from fedvlr_plugin.rng import Stream, generator

FloatArray = npt.NDArray[np.float64]
BLOCK_ENTRIES = 1 << 22
SECURE_BLOCK_BYTES = 1 << 30
SMALLEST_SECURE_BLOCK = 1 << 15
COUNT_ROUND, FIRST_BLOCK_ROUND = 1, 2
ID_BYTES, NUMBER_BYTES, PAIR_BYTES = 4, 4, 8


class OneShotParams(Frozen):
    """The model's own parameters (`params` of the specification)."""

    lam: float | None = Field(None, gt=0.0, description="lambda; None = chosen by validation")
    content_weight: float | None = Field(None, ge=0.0, description="a, of FedEASE+content; None = chosen by validation")
    minimum_count: int = Field(3, ge=1, description="k, consumers an item needs to be kept; without noise only")
    download: Literal["own", "all"] = "own"


@dataclass(frozen=True)
class OneShotSum:
    """What the server holds after the round.

    Attributes:
        gram: G, zero in the rows and columns of items that were dropped.
        kept: ids of the items that were kept, ascending.
        accounts: what was counted: `items_kept`, mean bytes per client up and down, clients lost, `epsilon`.
    """

    gram: GramMatrix
    kept: IntArray
    accounts: dict[str, float]


def check_conditions(spec: RunSpec) -> None:
    """Refuse what a single closed-form round cannot do.

    Raises:
        ConfigError: robust rules, attacks, faults, adaptive clipping, or a specification of more than one round.
    """
    conditions, row = spec.conditions, spec.row
    for name, part in (("robust", conditions.robust), ("attack", conditions.attack), ("faults", conditions.faults)):
        if part is not None:
            raise ConfigError(f"row '{row}' sends one sum of counts and takes no '{name}'; it takes privacy and secure")
    if conditions.privacy is not None and conditions.privacy.adaptive_quantile is not None:
        raise ConfigError(f"row '{row}' has one round, so its bound cannot adapt; leave adaptive_quantile out")
    if spec.training.rounds != 1 or spec.training.participation != 1.0:
        raise ConfigError(
            f"row '{row}' is one round of all clients; got rounds {spec.training.rounds}, participation "
            f"{spec.training.participation:g}: set rounds=1 and participation=1"
        )


def gather(
    spec: RunSpec, interactions: Interactions, params: OneShotParams, memory_budget: int, with_content: bool = False
) -> OneShotSum:
    """Play the round: the clients' uploads, and their sum at the server.

    Args:
        spec: row, seed and conditions.
        interactions: the clients' histories.
        params: minimum count and kind of download.
        memory_budget: bytes that the one matrix may take.
        with_content: whether B will have rows for dropped items too, from their content; for the bytes only.

    Raises:
        ConfigError: conditions that do not fit, or a matrix that does not fit into the budget.
        FedVLRError: too few clients answered a secure sum, so it was given up.
    """
    check_conditions(spec)
    check_memory(spec.row, interactions.n_items, memory_budget)
    histories, privacy, secure = history_matrix(interactions), spec.conditions.privacy, spec.conditions.secure
    clients = _Clients(histories, secure, spec.seed)
    accounts: dict[str, float] = {}
    if privacy is None:
        counts = clients.sum_counts()
        kept = np.flatnonzero(counts >= params.minimum_count)
    else:
        kept = np.arange(interactions.n_items)
    kept_histories = histories[:, kept].tocsr()
    factors, noise = _mechanism(spec, kept_histories)
    gram = GramMatrix(interactions.n_items)
    for number, (first, last) in enumerate(_column_blocks(len(kept), clients.block_entries)):
        packed = clients.sum_pairs(kept_histories, factors, first, last, FIRST_BLOCK_ROUND + number)
        if noise > 0.0:
            source = generator(spec.seed, Stream.NOISE, 1, number)
            packed += noise * torch.randn(len(packed), dtype=torch.float64, generator=source).numpy()
        elif privacy is None:
            packed = np.rint(packed)
        start = 0
        for column in range(first, last):
            gram.put_column(int(kept[column]), kept[: column + 1], packed[start : start + column + 1])
            start += column + 1
    accounts |= _uplink(histories, kept_histories, secure is not None, with_count=privacy is None)
    accounts |= _downlink(histories if with_content else kept_histories, params.download, len(kept))
    accounts |= clients.accounts
    if privacy is not None:
        promised = guarantee_of(spec, interactions.n_users)
        if promised is not None and promised.epsilon is not None:
            accounts["epsilon"] = promised.epsilon
    return OneShotSum(gram, kept, {"items_kept": float(len(kept))} | accounts)


def pair_norms(histories: sp.csr_matrix) -> FloatArray:
    """L2 norm of each client's upper triangle of x_u x_u^T, `[n_users]`: the root of n_u (n_u + 1) / 2."""
    sizes = np.diff(histories.indptr).astype(np.float64)
    norms: FloatArray = np.sqrt(sizes * (sizes + 1.0) / 2.0)
    return norms


def _mechanism(spec: RunSpec, histories: sp.csr_matrix) -> tuple[FloatArray, float]:
    """Factor of each client's upload `[n_users]`, and the standard deviation of the noise on the sum."""
    n_users = histories.shape[0]
    privacy: Privacy | None = spec.conditions.privacy
    if privacy is None:
        return np.ones(n_users), 0.0
    if privacy.mechanism == "paper_noise":
        return np.ones(n_users), float(privacy.noise_scale or 0.0) * math.sqrt(n_users)
    promised = guarantee_of(spec, n_users)
    if promised is None or promised.noise_multiplier is None:
        raise ConfigError("the gaussian mechanism needs a noise multiplier, got none")
    factors = np.minimum(1.0, privacy.clip / np.maximum(pair_norms(histories), 1e-300))
    return factors, promised.noise_multiplier * privacy.clip


def _column_blocks(n: int, entries: int) -> Iterator[tuple[int, int]]:
    """Columns `first .. last` of an upper triangle in blocks of at most `entries` numbers, at least one column each."""
    first = 0
    while first < n:
        last, size = first + 1, first + 1
        while last < n and size + last + 1 <= entries:
            size += last + 1
            last += 1
        yield first, last
        first = last


class _Clients:
    """The clients' side of both sums, plain or secure.

    Args:
        histories: `[n_users, n_items]`, 0/1.
        secure: settings of the secure sum, None = the server adds plain uploads.
        seed: of the secure sum's secrets and losses.
    """

    def __init__(self, histories: sp.csr_matrix, secure: Secure | None, seed: int) -> None:
        self.histories, self.secure, self.seed = histories, secure, seed
        self.n_users = histories.shape[0]
        self.accounts: dict[str, float] = {}
        self.block_entries = BLOCK_ENTRIES
        if secure is not None:
            self.block_entries = max(SECURE_BLOCK_BYTES // (4 * self.n_users), SMALLEST_SECURE_BLOCK)

    def sum_counts(self) -> FloatArray:
        """How many clients have each item, `[n_items]`."""
        if self.secure is None:
            counts: FloatArray = np.asarray(self.histories.sum(axis=0)).ravel()
            return counts
        owners = np.repeat(np.arange(self.n_users), np.diff(self.histories.indptr))
        found = self._secure_sum(
            owners, self.histories.indices.astype(np.int64), np.ones(len(owners)), self.histories.shape[1], COUNT_ROUND
        )
        rounded: FloatArray = np.rint(found)
        return rounded

    def sum_pairs(self, histories: sp.csr_matrix, factors: FloatArray, first: int, last: int, round: int) -> FloatArray:
        """Columns `first .. last` of sum_u factor_u * triangle(x_u x_u^T), packed column by column.

        Args:
            histories: over the items kept.
            factors: `[n_users]`.
            round: number of this piece, for fresh masks.

        Returns:
            Column c gives its c + 1 entries from item 0 to item c.
        """
        if self.secure is None:
            columns = histories.tocsc()[:, first:last]
            scaled = sp.diags(factors) @ columns
            full = (histories[:, :last].T @ scaled).toarray()
            return np.concatenate([full[: column + 1, column - first] for column in range(first, last)])
        owners, places = triangle_entries(histories, first, last)
        begin, end = _packed(0, first), _packed(0, last)
        return self._secure_sum(owners, places - begin, factors[owners], end - begin, round)

    def _secure_sum(self, owners: IntArray, places: IntArray, values: FloatArray, size: int, round: int) -> FloatArray:
        """Secure sum of one sparse vector per client; owners ascending, each client's places distinct."""
        if self.secure is None:
            raise ConfigError("no secure sum was asked for")
        rule = SecureSum(self.secure, self.seed, losses_of=COUNT_ROUND)
        everybody = torch.arange(self.n_users)
        sizes = torch.from_numpy(np.diff(self.histories.indptr).astype(np.int64))
        shape = UploadShape({"table.sum": torch.empty(size, 1, device="meta")})
        cpu = torch.device("cpu")
        rule.begin(Cohort(round, everybody, sizes, self.n_users, "equal"), shape, torch.float64, cpu)
        keys = owners * size + places
        order = np.argsort(keys)
        rows = torch.from_numpy(values[order])[:, None]
        no_layers = torch.zeros(self.n_users, 0, dtype=torch.float64)
        rule.take(ClientUploads(shape, everybody, sizes, torch.from_numpy(keys[order]), rows, no_layers))
        total = rule.total()
        for name, value in rule.counts().items():
            add = name == "clamped"  # entries add up over the pieces, clients are the same in all
            self.accounts[name] = self.accounts.get(name, 0.0) + value if add else value
        if total is None:
            raise FedVLRError(
                "the secure sum was given up: fewer clients answered than its threshold asks for, and there is no "
                "second round; lower secure.threshold, or lose fewer clients"
            )
        summed: FloatArray = total["table.sum"][:, 0].numpy() * self.n_users  # the rule weighs each client 1 / U
        return summed


def _packed(row: int, column: int) -> int:
    """Place of an entry of the upper triangle, packed column by column."""
    return column * (column + 1) // 2 + row


def triangle_entries(histories: sp.csr_matrix, first: int, last: int) -> tuple[IntArray, IntArray]:
    """The entries of every client's triangle in some columns.

    Args:
        histories: `[n_users, n]`, 0/1.
        first, last: the columns `first .. last - 1`.

    Returns:
        `(owners, places)`: the client of each entry, and its place in the whole packed triangle.
    """
    sorted_histories = histories.sorted_indices()
    indptr, items = sorted_histories.indptr.astype(np.int64), sorted_histories.indices.astype(np.int64)
    owners = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(indptr))
    inside = np.flatnonzero((items >= first) & (items < last))
    columns, of = items[inside], owners[inside]
    lengths = inside - indptr[of] + 1  # items of the same client up to this one
    rows_start = indptr[of]
    offsets = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = items[np.repeat(rows_start, lengths) + offsets]
    column = np.repeat(columns, lengths)
    return np.repeat(of, lengths), column * (column + 1) // 2 + rows


def _uplink(histories: sp.csr_matrix, kept: sp.csr_matrix, secure: bool, with_count: bool) -> dict[str, float]:
    """Mean bytes that a client sends: dense under a secure sum; else the pairs it has, two ids each.

    Args:
        histories, kept: over all items, and over those kept.
        secure: whether the run's sums are secure.
        with_count: whether counts are sent first (not under noise).

    Returns:
        `bytes_up` of this run, and `bytes_up_secure`, what it is or would be under secure sums.
    """
    n_items, n_kept = histories.shape[1], kept.shape[1]
    sizes, kept_sizes = np.diff(histories.indptr).astype(np.float64), np.diff(kept.indptr).astype(np.float64)
    dense = float(NUMBER_BYTES * (_packed(0, n_kept) + (n_items if with_count else 0)))
    pairs = float((PAIR_BYTES * kept_sizes * (kept_sizes + 1) / 2).mean())
    plain = pairs + (float((ID_BYTES * sizes).mean()) if with_count else 0.0)
    return {"bytes_up": dense if secure else plain, "bytes_up_secure": dense}


def _downlink(histories: sp.csr_matrix, download: Literal["own", "all"], n_kept: int) -> dict[str, float]:
    """Mean bytes that a client receives: the ids of the items kept, and rows of B.

    Args:
        histories: `[n_users, width of B]`, whose items have a row of B.
        download: whether a client fetches its own rows or all.
        n_kept: items that were kept.

    Returns:
        `bytes_down` of this run, and `bytes_down_all`, what it is or would be with `download: all`.
    """
    width = histories.shape[1]
    announced = float(ID_BYTES * n_kept)
    own = announced + float((NUMBER_BYTES * np.diff(histories.indptr).astype(np.float64) * width).mean())
    every = announced + float(NUMBER_BYTES * width**2)
    return {"bytes_down": own if download == "own" else every, "bytes_down_all": every}
