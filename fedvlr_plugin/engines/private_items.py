"""Private item rows (PFedRec's Delta, FedRAP's P): only what a client touched, within a memory budget.

A dense users x items x d table is 10.3 GB on Movie, so none is ever built. Rows live in *arenas*, one row `[d]` per
touched (client, item) pair, in the arena of values and, where Adam's moments outlive a round, in one for each; each
client keeps two small arrays, its touched items (ascending) and their rows. An arena is anonymous memory, mapped
lazily, until the budget is used up; further rows go to a memory-mapped scratch file, whose pages are dropped from the
process after every block. Rows that a batch does not touch are frozen (SparseAdam).
Growing storage of rows of numbers: memory up to a budget, a memory-mapped scratch file beyond.

Both parts are mapped lazily at their largest possible size, so that rows never move; the scratch file's pages are
dropped from the process after use.
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
    """Rows of a block that a round will touch: `keys [T]` = client * n_items + item, ascending; `values [T, d]`.

    Where the block is `lent`, `values` and `moments` are the arenas themselves, and `rows [T]` are the keys' places.
    """

    keys: torch.Tensor
    owner: torch.Tensor
    values: torch.Tensor
    moments: tuple[torch.Tensor, torch.Tensor] | None
    steps: torch.Tensor
    rows: Ids
    lent: bool = False


@dataclass
class PrivateItemsSnapshot:
    """Copies of all values, with the index that was in force."""

    items: list[Ids]
    rows: list[Ids]
    values: RowStorage
    used: int

    def tensors(self) -> dict[str, torch.Tensor]:
        """As `PrivateItems.export`."""
        rows = np.concatenate([EMPTY, *self.rows])
        return {
            "own.sizes": torch.tensor([len(items) for items in self.items]),
            "own.items": torch.from_numpy(np.concatenate([EMPTY, *self.items])),
            "own.values": torch.from_numpy(self.values.read(rows)),
        }


def check_budget(budget: int, n_items: int, width: int, itemsize: int) -> None:
    """Raises `ConfigError` when a budget does not hold one client's rows `[n_items, width]`, twice over."""
    least = 2 * n_items * width * itemsize
    if budget < least:
        raise ConfigError(
            f"memory budget {budget} bytes is too small for one client's private item rows; at least {least} bytes "
            f"are needed for {n_items} items ({width} numbers a row, optimiser moments included)"
        )


class PrivateItems:
    """All clients' private item rows, by slot.

    Half of the budget is for the rows in training, a quarter each for two copies of their values, the best round's and
    the one being made.

    Raises `ConfigError` when the budget is too small for the rows of the largest single client.
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
        self.arena, *self.moments = self._arenas(n_users)
        self.items: list[Ids] = [EMPTY] * n_users
        self.rows: list[Ids] = [EMPTY] * n_users
        self.steps = torch.zeros(n_users, dtype=torch.int64)
        self.values: RowStorage = self.arena
        self._lock = threading.Lock()

    def _arenas(self, n_users: int) -> list[RowStorage]:
        """Arenas of the values and of the moments that are kept; rows with the same number belong together."""
        kept = 1 if self.fresh else self.copies
        return [RowStorage(n_users * self.n_items, self.dim, self.dtype, self.budget // 2 // kept) for _ in range(kept)]

    def _allocate(self, n: int) -> Ids:
        with self._lock:  # blocks run side by side
            for moment in self.moments:
                moment.allocate(n)
            return self.arena.allocate(n)

    def forget(self, slots: torch.Tensor) -> None:
        """Sets clients' rows back to zero, with fresh moments."""
        for slot in slots.tolist():
            rows = self.rows[slot]
            for arena in (self.arena, *self.moments):
                arena.write(rows, np.zeros((len(rows), self.dim), dtype=self.dtype))
        self.steps[slots.cpu()] = 0

    def checkout(self, slots: torch.Tensor, keys: torch.Tensor, lend: bool = False) -> PrivateItemsBlock:
        """Rows for `keys` (client in the block * n_items + item, ascending, distinct), made where new.

        Copies; with `lend`, on a CPU, the arenas themselves where they are persistent and in memory.
        """
        device, ids = self.problem.device, slots.tolist()
        wanted = keys.cpu().numpy()
        owner = wanted // self.n_items
        bounds = np.searchsorted(owner, np.arange(len(ids) + 1))
        rows = np.empty(len(wanted), dtype=np.int64)
        for c, slot in enumerate(ids):
            part = slice(bounds[c], bounds[c + 1])
            rows[part] = self._rows_of(slot, wanted[part] - c * self.n_items)
        arenas = (self.arena, *self.moments)
        lent = lend and not self.fresh and all(bool((rows < arena.in_memory).all()) for arena in arenas)
        if lent:
            parts = [torch.from_numpy(arena.memory) for arena in arenas]
        elif self.fresh:
            self.steps[slots.cpu()] = 0
            zeros = torch.zeros(self.copies, len(rows), self.dim, dtype=self.problem.dtype, device=device)
            parts = list(zeros.unbind())
        else:
            parts = [torch.from_numpy(arena.read(rows)).to(device) for arena in arenas]
        moments = (parts[1], parts[2]) if self.copies == 3 else None
        steps = self.steps[slots.cpu()].to(device)
        return PrivateItemsBlock(keys, torch.from_numpy(owner).to(device), parts[0], moments, steps, rows, lent)

    def _rows_of(self, slot: int, items: Ids) -> Ids:
        """RowStorage rows of one client's items; a fresh client's former rows are used again."""
        if self.fresh:
            spare = self.rows[slot]
            if len(spare) < len(items):
                spare = np.concatenate([spare, self._allocate(len(items) - len(spare))])
            self.items[slot], self.rows[slot] = items, spare[: len(items)]
            return self.rows[slot]
        have = self.items[slot]
        place = np.searchsorted(have, items)
        new = np.ones(len(items), dtype=bool)
        new[place < len(have)] = have[place[place < len(have)]] != items[place < len(have)]
        if new.any():
            self.rows[slot] = np.insert(self.rows[slot], place[new], self._allocate(int(new.sum())))
            self.items[slot] = np.insert(have, place[new], items[new])
            place += np.cumsum(new) - new
        return self.rows[slot][place]

    def update(self, block: PrivateItemsBlock, touched: torch.Tensor, grad: torch.Tensor) -> None:
        """SparseAdam (or SGD) on the rows `touched [D]` of a block with `grad [D, d]`; steps are counted already."""
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
        """Writes a block's rows back, unless they were lent."""
        parts = [] if block.lent else [block.values, *(block.moments or ())]
        for arena, part in zip((self.arena, *self.moments), parts, strict=False):  # a fresh client's moments end here
            arena.write(block.rows, part.cpu().numpy())
        self.steps[slots.cpu()] = block.steps.cpu()

    def dense(self, slots: torch.Tensor) -> torch.Tensor:
        """Values of a few clients for evaluation, `[B, n_items, d]`, zero where untouched (or lost)."""
        out = np.zeros((len(slots) * self.n_items, self.dim), dtype=self.dtype)
        keys, values = self.touched(slots)
        out[keys.cpu().numpy()] = values.cpu().numpy()
        return torch.from_numpy(out).view(len(slots), self.n_items, self.dim).to(self.problem.device)

    def touched(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of a few clients for evaluation: position in `work_queue` * n_items + item `[T]`, and values `[T, d]`."""
        items, rows, indptr = self._index(slots)
        at = items + np.repeat(np.arange(len(slots)), np.diff(indptr)) * self.n_items
        device = self.problem.device
        return torch.from_numpy(at).to(device), torch.from_numpy(self.values.read(rows)).to(device)

    def lend_for_evaluation(self, slots: torch.Tensor) -> tuple[Ids, Ids, Ids, FloatRows]:
        """Items and places `[T]` of a few clients' rows, ragged by `indptr [B + 1]`, and the rows these are places in.

        All rows, or, unless these clients' are in memory, copies of theirs.
        """
        items, rows, indptr = self._index(slots)
        if (rows < self.values.in_memory).all():
            return items, rows, indptr, self.values.memory
        return items, np.arange(len(rows)), indptr, self.values.read(rows)

    def _index(self, slots: torch.Tensor) -> tuple[Ids, Ids, Ids]:
        """Items and arena rows `[T]` in force for some clients, ragged by `indptr [B + 1]`; none where they are lost."""
        ids = slots.tolist()
        items = [EMPTY if self.lost else self.items[slot] for slot in ids]
        rows = [EMPTY if self.lost else self.rows[slot] for slot in ids]
        indptr = np.cumsum([0, *map(len, rows)])
        return np.concatenate([EMPTY, *items]), np.concatenate([EMPTY, *rows]), indptr

    def export(self) -> dict[str, torch.Tensor]:
        """All rows as tensors: `own.sizes [n_slots]`, `own.items [T]`, `own.values [T, d]`."""
        rows = np.concatenate([EMPTY, *self.rows])
        return {
            "own.sizes": torch.tensor([len(items) for items in self.items]),
            "own.items": torch.from_numpy(np.concatenate([EMPTY, *self.items])),
            "own.values": torch.from_numpy(self.values.read(rows)),
        }

    def training_state(self) -> dict[str, torch.Tensor]:
        """What training goes on from: as `export`, with the kept moments side by side, and each slot's steps."""
        rows = np.concatenate([EMPTY, *self.rows])
        values = np.concatenate([arena.read(rows) for arena in (self.arena, *self.moments)], axis=1)
        return self.export() | {"own.values": torch.from_numpy(values), "own.steps": self.steps}

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts it back."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        self.arena, *self.moments = self._arenas(len(self.items))
        rows = self._allocate(len(items))
        parts = state["own.values"].cpu().split(self.dim, dim=1)
        for arena, part in zip((self.arena, *self.moments), parts, strict=False):
            arena.write(rows, part.numpy())
        self.items, self.rows = np.split(items, sizes), np.split(rows, sizes)
        self.steps.copy_(state["own.steps"])
        self.values = self.arena

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts exported rows in force for evaluation."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        self.values = RowStorage(max(len(items), 1), self.dim, self.dtype, self.budget)
        rows = self.values.allocate(len(items))
        self.values.write(rows, state["own.values"].cpu().numpy())
        self.items, self.rows = np.split(items, sizes), np.split(rows, sizes)

    def snapshot(self) -> PrivateItemsSnapshot:
        """A copy of every value (not the moments), kept within the same kind of budget."""
        used = self.arena.used
        copy = RowStorage(max(used, 1), self.dim, self.dtype, self.budget // 4)
        copy.allocate(used)
        for begin in range(0, used, 1 << 16):
            rows = np.arange(begin, min(used, begin + (1 << 16)), dtype=np.int64)
            copy.write(rows, self.arena.read(rows))
        return PrivateItemsSnapshot(list(self.items), list(self.rows), copy, used)

    def load_snapshot(self, state: Mapping[str, torch.Tensor]) -> PrivateItemsSnapshot:
        """A snapshot from its tensors."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        copy = RowStorage(max(len(items), 1), self.dim, self.dtype, self.budget // 4)
        rows = copy.allocate(len(items))
        copy.write(rows, state["own.values"].cpu().numpy())
        return PrivateItemsSnapshot(np.split(items, sizes), np.split(rows, sizes), copy, len(items))

    def restore(self, snapshot: PrivateItemsSnapshot) -> None:
        """Puts a snapshot's values in force for evaluation; training must not go on afterwards."""
        self.items, self.rows, self.values = list(snapshot.items), list(snapshot.rows), snapshot.values


FloatType = np.dtype[np.float32] | np.dtype[np.float64]
FloatRows = npt.NDArray[np.float64]  # or float32
Ids = npt.NDArray[np.int64]


class RowStorage:
    """Growing storage of rows `[width]`: memory up to `budget` bytes, a scratch file beyond.

    Attributes:
        memory: `[in_memory, width]`, the rows that live in memory, by number.

    Both parts are mapped once at their largest possible size; the system gives pages as they are written.
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
        """`n` new rows, zero; neighbours."""
        rows = np.arange(self.used, self.used + n, dtype=np.int64)
        self.used += n
        if self.used > self.in_memory and self._file is None:
            with tempfile.TemporaryFile(prefix="fedvlr-rows-") as scratch:
                rest = self._most_rows - self.in_memory
                scratch.truncate(rest * self.width * self.dtype.itemsize)
                self._file = self._map(rest, scratch.fileno())
        return rows

    def read(self, rows: Ids, width: int | None = None) -> FloatRows:
        """Copies of some rows `[len(rows), width]` (their first `width` numbers)."""
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
        """Stores `values [len(rows), width]`."""
        low = rows < self.in_memory
        if low.all():
            self.memory[rows] = values
            return
        self.memory[rows[low]] = values[low]
        if self._file is not None:
            self._file[rows[~low] - self.in_memory] = values[~low]
            self._drop()

    def _drop(self) -> None:
        """Gives the scratch file's pages back to the system; what was written stays in the file."""
        if self._file_map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file_map.madvise(mmap.MADV_DONTNEED)
