"""Private item vectors (PFedRec's Delta, FedRAP's P): only what a client touched, within a memory budget.

A dense users x items x d table is 10.3 GB on Movie, so none is ever built. One vector `[d]` per touched (client, item)
pair lives in a `RowStorage` of values and, where Adam's moments outlive a round, in one for each moment; each client
keeps two small arrays, its touched items (ascending) and where their vectors are. A storage is anonymous memory, mapped
lazily at its largest possible size so that vectors never move, until the budget is used up; further ones go to a
memory-mapped scratch file, whose pages are dropped from the process after every block. Vectors that a batch does not
touch are frozen (SparseAdam).
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.engines.base import LocalProblem
from fedvlr_plugin.engines.optimizers import adam_rows
from fedvlr_plugin.errors import ConfigError

NUMPY_DTYPES: dict[torch.dtype, FloatType] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
EMPTY: Ids = np.zeros(0, dtype=np.int64)


@dataclass
class PrivateItemsBlock:
    """Private item vectors of a block that a round will touch.

    Attributes:
        keys: `[T]`, client in the block * n_items + item, ascending.
        owner: `[T]`, client in the block.
        values: `[T, d]`; where the block is `lent`, the storage itself.
        moments: like `values`; None for SGD.
        steps: `[B]`, steps that each client has taken.
        rows: `[T]`, where the keys' vectors are in the storage.
        lent: whether changes go into the storage at once.
    """

    keys: torch.Tensor
    owner: torch.Tensor
    values: torch.Tensor
    moments: tuple[torch.Tensor, torch.Tensor] | None
    steps: torch.Tensor
    rows: Ids
    lent: bool = False


def check_budget(budget: int, n_items: int, width: int, itemsize: int) -> None:
    """Raise `ConfigError` when a budget in bytes does not hold one client's vectors `[n_items, width]`, twice over."""
    least = 2 * n_items * width * itemsize
    if budget < least:
        raise ConfigError(
            f"memory budget {budget} bytes is too small for one client's private item rows; at least {least} bytes "
            f"are needed for {n_items} items ({width} numbers a row, optimiser moments included)"
        )


class PrivateItems:
    """Private item vectors of all clients, by slot.

    Half of the budget is for training, a quarter each for two copies (`state`): the best round's and the one being made.

    Args:
        problem: the clients' side of the run.
        budget: bytes of memory.

    Attributes:
        values: the vectors. moments: Adam's two moments of them, where they outlive a round.
        items: each slot's touched items, ascending. rows: where their vectors are in `values` and `moments`.
        steps: `[n_slots]`, steps that each slot's client has taken.

    Raises:
        ConfigError: the budget is too small for the vectors of the largest single client.
    """

    def __init__(self, problem: LocalProblem, budget: int) -> None:
        self.problem, self.budget = problem, budget
        self.dim, self.n_items = problem.fusion.dim, problem.histories.n_items
        self.copies = 3 if problem.spec.training.client_optimizer == "adam" else 1
        self.fresh = problem.backbone.own_rows == "fresh"
        self.lost = not problem.spec.protocol.keep_private_state and "own" in problem.backbone.forgets
        self.dtype = NUMPY_DTYPES[problem.dtype]
        check_budget(budget, self.n_items, self.copies * self.dim, self.dtype.itemsize)
        n_users = problem.histories.n_slots
        self.values, *self.moments = self._storages(n_users)
        self.items: list[Ids] = [EMPTY] * n_users
        self.rows: list[Ids] = [EMPTY] * n_users
        self.steps = torch.zeros(n_users, dtype=torch.int64)
        self._lock = threading.Lock()

    def _storages(self, n_users: int) -> list[RowStorage]:
        """Storages of the values and of the moments that are kept; rows with the same number belong together."""
        kept = 1 if self.fresh else self.copies
        return [RowStorage(n_users * self.n_items, self.dim, self.dtype, self.budget // 2 // kept) for _ in range(kept)]

    def _allocate(self, n: int) -> Ids:
        with self._lock:  # blocks run side by side
            for moment in self.moments:
                moment.allocate(n)
            return self.values.allocate(n)

    def forget(self, slots: torch.Tensor) -> None:
        """Set clients' vectors back to zero, with fresh moments."""
        for slot in slots.tolist():
            rows = self.rows[slot]
            for storage in (self.values, *self.moments):
                storage.write(rows, np.zeros((len(rows), self.dim), dtype=self.dtype))
        self.steps[slots.cpu()] = 0

    def checkout(self, slots: torch.Tensor, keys: torch.Tensor, lend: bool = False) -> PrivateItemsBlock:
        """Take out the vectors of a block, made where they are new.

        Args:
            slots: `[B]`, the block's clients.
            keys: `[T]`, client in the block * n_items + item, ascending, distinct.
            lend: give the storage itself in place of copies, where it persists and these vectors are in memory; for
                programs on a CPU.
        """
        device, ids = self.problem.device, slots.tolist()
        flat_keys = keys.cpu().numpy()
        owner = flat_keys // self.n_items
        bounds = np.searchsorted(owner, np.arange(len(ids) + 1))
        rows = np.empty(len(flat_keys), dtype=np.int64)
        for client, slot in enumerate(ids):
            part = slice(bounds[client], bounds[client + 1])
            rows[part] = self._rows_of(slot, flat_keys[part] - client * self.n_items)
        storages = (self.values, *self.moments)
        lent = lend and not self.fresh and all(bool((rows < storage.in_memory).all()) for storage in storages)
        if lent:
            parts = [torch.from_numpy(storage.memory) for storage in storages]
        elif self.fresh:
            self.steps[slots.cpu()] = 0
            zeros = torch.zeros(self.copies, len(rows), self.dim, dtype=self.problem.dtype, device=device)
            parts = list(zeros.unbind())
        else:
            parts = [torch.from_numpy(storage.read(rows)).to(device) for storage in storages]
        moments = (parts[1], parts[2]) if self.copies == 3 else None
        steps = self.steps[slots.cpu()].to(device)
        return PrivateItemsBlock(keys, torch.from_numpy(owner).to(device), parts[0], moments, steps, rows, lent)

    def _rows_of(self, slot: int, items: Ids) -> Ids:
        """Where one client's items are in the storage; a fresh client's former places are used again."""
        if self.fresh:
            spare = self.rows[slot]
            if len(spare) < len(items):
                spare = np.concatenate([spare, self._allocate(len(items) - len(spare))])
            self.items[slot], self.rows[slot] = items, spare[: len(items)]
            return self.rows[slot]
        known = self.items[slot]
        place = np.searchsorted(known, items)
        new = np.ones(len(items), dtype=bool)
        new[place < len(known)] = known[place[place < len(known)]] != items[place < len(known)]
        if new.any():
            self.rows[slot] = np.insert(self.rows[slot], place[new], self._allocate(int(new.sum())))
            self.items[slot] = np.insert(known, place[new], items[new])
            place += np.cumsum(new) - new
        return self.rows[slot][place]

    def update(self, block: PrivateItemsBlock, touched: torch.Tensor, grad: torch.Tensor) -> None:
        """Step (SparseAdam or SGD) the vectors `touched [D]` of a block by `grad [D, d]`; steps are counted already."""
        lr = self.problem.spec.training.client_lr
        values = block.values[touched]
        if block.moments is None:
            block.values[touched] = values - lr * grad
            return
        first, second = block.moments[0][touched], block.moments[1][touched]
        adam_rows(values, first, second, grad, block.steps[block.owner[touched]], lr)
        block.values[touched] = values
        block.moments[0][touched] = first
        block.moments[1][touched] = second

    def checkin(self, slots: torch.Tensor, block: PrivateItemsBlock) -> None:
        """Write a block's vectors back, unless they were lent."""
        parts = [] if block.lent else [block.values, *(block.moments or ())]
        for storage, part in zip(
            (self.values, *self.moments), parts, strict=False
        ):  # a fresh client's moments end here
            storage.write(block.rows, part.cpu().numpy())
        self.steps[slots.cpu()] = block.steps.cpu()

    def dense(self, slots: torch.Tensor) -> torch.Tensor:
        """Values of a few clients for evaluation, `[B, n_items, d]`, zero where untouched (or lost)."""
        out = np.zeros((len(slots) * self.n_items, self.dim), dtype=self.dtype)
        keys, values = self.touched(slots)
        out[keys.cpu().numpy()] = values.cpu().numpy()
        return torch.from_numpy(out).view(len(slots), self.n_items, self.dim).to(self.problem.device)

    def touched(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of a few clients for evaluation: position in `slots` * n_items + item `[T]`, and values `[T, d]`."""
        items, rows, indptr = self._index(slots)
        keys = items + np.repeat(np.arange(len(slots)), np.diff(indptr)) * self.n_items
        device = self.problem.device
        return torch.from_numpy(keys).to(device), torch.from_numpy(self.values.read(rows)).to(device)

    def lend_for_evaluation(self, slots: torch.Tensor) -> tuple[Ids, Ids, Ids, FloatRows]:
        """A few clients' vectors for evaluation, without a copy where they are in memory.

        Returns:
            items `[T]`; rows `[T]`; both ragged by `indptr [B + 1]`; the vectors `[., d]` that the rows are numbers of.
        """
        items, rows, indptr = self._index(slots)
        if (rows < self.values.in_memory).all():
            return items, rows, indptr, self.values.memory
        return items, np.arange(len(rows)), indptr, self.values.read(rows)

    def _index(self, slots: torch.Tensor) -> tuple[Ids, Ids, Ids]:
        """Items and storage rows `[T]` of some clients, ragged by `indptr [B + 1]`; none where they are lost."""
        ids = slots.tolist()
        items = [EMPTY if self.lost else self.items[slot] for slot in ids]
        rows = [EMPTY if self.lost else self.rows[slot] for slot in ids]
        indptr = np.cumsum([0, *map(len, rows)])
        return np.concatenate([EMPTY, *items]), np.concatenate([EMPTY, *rows]), indptr

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        """A copy of what the clients hold, slot after slot.

        Returns:
            `own.sizes [n_slots]`, touched items of each slot; `own.items [T]`; `own.values [T, d]`. With `moments`
            `own.steps [n_slots]` too, and the kept moments beside the values, `own.values [T, 3 d]`. Values beyond a
            quarter of the budget lie in a scratch file.
        """
        rows = np.concatenate([EMPTY, *self.rows])
        storages = (self.values, *self.moments) if moments else (self.values,)
        copied = ScratchRows(len(rows), self.dim * len(storages), self.dtype, self.budget // 4)
        for begin in range(0, len(rows), COPIED_AT_ONCE):
            part = slice(begin, begin + COPIED_AT_ONCE)
            for number, storage in enumerate(storages):
                copied.values[part, number * self.dim : (number + 1) * self.dim] = storage.read(rows[part])
            copied.drop()
        state = {
            "own.sizes": torch.tensor([len(items) for items in self.items]),
            "own.items": torch.from_numpy(np.concatenate([EMPTY, *self.items])),
            "own.values": torch.from_numpy(copied.values),
        }
        return state | {"own.steps": self.steps.clone()} if moments else state

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put a copy of a state in force; moments and steps that it does not hold start at zero.

        Raises:
            KeyError: a tensor is missing. RuntimeError: the state is of another number of clients.
        """
        sizes, items = state["own.sizes"].cpu().numpy(), state["own.items"].cpu().numpy()
        values = state["own.values"].cpu().numpy()
        if len(sizes) != len(self.items):
            raise RuntimeError(f"private items of {len(sizes)} clients cannot be loaded into {len(self.items)}")
        self.values, *self.moments = self._storages(len(self.items))
        rows = self._allocate(len(items))
        storages = (self.values, *self.moments) if values.shape[1] > self.dim else (self.values,)
        for begin in range(0, len(rows), COPIED_AT_ONCE):
            part = slice(begin, begin + COPIED_AT_ONCE)
            for number, storage in enumerate(storages):
                storage.write(rows[part], values[part, number * self.dim : (number + 1) * self.dim])
        borders = np.cumsum(sizes)[:-1]
        self.items, self.rows = np.split(items, borders), np.split(rows, borders)
        if "own.steps" in state:
            self.steps.copy_(state["own.steps"])
        else:
            self.steps.zero_()


COPIED_AT_ONCE = 1 << 16
FloatType = np.dtype[np.float32] | np.dtype[np.float64]
FloatRows = npt.NDArray[np.float64]  # or float32
Ids = npt.NDArray[np.int64]


class ScratchRows:
    """Rows `[n, width]` side by side: in memory up to `budget` bytes, all in a scratch file beyond.

    Attributes:
        values: `[n, width]`, to be written; keeps memory or file alive.
    """

    def __init__(self, n: int, width: int, dtype: FloatType, budget: int) -> None:
        self._file_map: mmap.mmap | None = None
        size = n * width * dtype.itemsize
        if size <= budget:
            self.values: FloatRows = np.empty((n, width), dtype)
            return
        with tempfile.TemporaryFile(prefix="fedvlr-rows-") as scratch:
            scratch.truncate(size)
            self._file_map = mmap.mmap(scratch.fileno(), size)
        self.values = np.ndarray((n, width), dtype, self._file_map)

    def drop(self) -> None:
        """Give the scratch file's pages back to the system; what was written stays in the file."""
        if self._file_map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file_map.madvise(mmap.MADV_DONTNEED)


class RowStorage:
    """Growing storage of rows `[width]`: memory up to `budget` bytes, a scratch file beyond.

    Both parts are mapped once at their largest possible size; the system gives pages as they are written.

    Args:
        most_rows: rows at most.
        width: numbers in a row.
        dtype: their type.
        budget: bytes of memory.

    Attributes:
        memory: `[in_memory, width]`, the rows that live in memory, by number.
        used: rows that were allocated.
    """

    def __init__(self, most_rows: int, width: int, dtype: FloatType, budget: int) -> None:
        row_bytes = width * dtype.itemsize
        self.in_memory = min(most_rows, budget // row_bytes)
        self.width, self.dtype, self.used = width, dtype, 0
        self.memory = self._map(self.in_memory, -1)
        self._file: FloatRows | None = None
        self._file_map: mmap.mmap | None = None
        self._most_rows = most_rows

    def _map(self, rows: int, descriptor: int) -> FloatRows:
        size = max(rows, 1) * self.width * self.dtype.itemsize
        if descriptor < 0:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            mapped = mmap.mmap(-1, size, flags=flags)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                mapped.madvise(mmap.MADV_HUGEPAGE)
        else:
            mapped = mmap.mmap(descriptor, size)
            self._file_map = mapped
        whole: FloatRows = np.ndarray((max(rows, 1), self.width), self.dtype, mapped)
        return whole

    @property
    def spilled_rows(self) -> int:
        """Rows that live in the scratch file."""
        return max(0, self.used - self.in_memory)

    def allocate(self, n: int) -> Ids:
        """Return the numbers of `n` new rows, zero and side by side."""
        rows = np.arange(self.used, self.used + n, dtype=np.int64)
        self.used += n
        if self.used > self.in_memory and self._file is None:
            with tempfile.TemporaryFile(prefix="fedvlr-rows-") as scratch:
                rest = self._most_rows - self.in_memory
                scratch.truncate(rest * self.width * self.dtype.itemsize)
                self._file = self._map(rest, scratch.fileno())
        return rows

    def read(self, rows: Ids, width: int | None = None) -> FloatRows:
        """Copy some rows `[len(rows), width]` out (their first `width` numbers)."""
        w = self.width if width is None else width
        low = rows < self.in_memory
        if low.all():
            return self.memory.take(rows, axis=0) if w == self.width else self.memory[:, :w][rows]
        out: FloatRows = np.empty((len(rows), w), dtype=self.dtype)
        out[low] = self.memory[:, :w][rows[low]]
        if self._file is not None:
            out[~low] = self._file[:, :w][rows[~low] - self.in_memory]
            self._drop()
        return out

    def write(self, rows: Ids, values: FloatRows) -> None:
        """Store `values [len(rows), width]` in some rows."""
        low = rows < self.in_memory
        if low.all():
            self.memory[rows] = values
            return
        self.memory[rows[low]] = values[low]
        if self._file is not None:
            self._file[rows[~low] - self.in_memory] = values[~low]
            self._drop()

    def _drop(self) -> None:
        """Give the scratch file's pages back to the system; what was written stays in the file."""
        if self._file_map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file_map.madvise(mmap.MADV_DONTNEED)
