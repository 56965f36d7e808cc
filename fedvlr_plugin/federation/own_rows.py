"""Private item rows (PFedRec's Delta, FedRAP's P): only what a client touched, within a memory budget.

A dense users x items x d table is 10.3 GB on Movie, so none is ever built. Rows live in an *arena*, one row of
`[k, d]` per touched (client, item) pair, k = 3 with Adam's moments and 1 without; each client keeps two small
arrays, its touched items (ascending) and their arena rows. The arena is anonymous memory, mapped lazily, until
the budget is used up; further rows go to a memory-mapped scratch file, whose pages are dropped from the process
after every block. Rows that a batch does not touch are frozen (SparseAdam). Imports `setup` only.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.optimizers import adam_rows
from fedvlr_plugin.federation.setup import LocalProblem

FloatType = np.dtype[np.generic]  # float32 or float64
FloatRows = npt.NDArray[np.generic]
NUMPY_DTYPES: dict[torch.dtype, FloatType] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
Ids = npt.NDArray[np.int64]
EMPTY: Ids = np.zeros(0, dtype=np.int64)


class Arena:
    """Growing storage of rows `[width]`: memory up to `budget` bytes, a scratch file beyond.

    Both parts are mapped once at their largest possible size; the system gives pages as they are written.
    """

    def __init__(self, most_rows: int, width: int, dtype: FloatType, budget: int) -> None:
        row_bytes = width * dtype.itemsize
        self.in_memory = min(most_rows, budget // row_bytes)
        self.width, self.dtype, self.used = width, dtype, 0
        self._memory = self._map(self.in_memory, -1)
        self._file: FloatRows | None = None
        self._file_map: mmap.mmap | None = None
        self._most_rows = most_rows

    def _map(self, rows: int, descriptor: int) -> FloatRows:
        size = max(rows, 1) * self.width * self.dtype.itemsize
        if descriptor < 0:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            mapped = mmap.mmap(-1, size, flags=flags)
        else:
            mapped = mmap.mmap(descriptor, size)
            self._file_map = mapped
        return np.frombuffer(mapped, dtype=self.dtype).reshape(max(rows, 1), self.width)

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
            return self._memory[:, :w][rows]
        out = np.empty((len(rows), w), dtype=self.dtype)
        out[low] = self._memory[:, :w][rows[low]]
        if self._file is not None:
            out[~low] = self._file[:, :w][rows[~low] - self.in_memory]
            self._drop()
        return out

    def write(self, rows: Ids, values: FloatRows) -> None:
        """Stores `values [len(rows), width]`."""
        low = rows < self.in_memory
        if low.all():
            self._memory[rows] = values
            return
        self._memory[rows[low]] = values[low]
        if self._file is not None:
            self._file[rows[~low] - self.in_memory] = values[~low]
            self._drop()

    def _drop(self) -> None:
        """Gives the scratch file's pages back to the system; what was written stays in the file."""
        if self._file_map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file_map.madvise(mmap.MADV_DONTNEED)


@dataclass
class OwnBlock:
    """Rows of a block that a round will touch: `keys [T]` = client * n_items + item, ascending; `values [T, d]`."""

    keys: torch.Tensor
    owner: torch.Tensor
    values: torch.Tensor
    moments: tuple[torch.Tensor, torch.Tensor] | None
    steps: torch.Tensor
    rows: Ids


@dataclass
class OwnSnapshot:
    """Copies of all values, with the index that was in force."""

    items: list[Ids]
    rows: list[Ids]
    values: Arena
    used: int

    def tensors(self) -> dict[str, torch.Tensor]:
        """As `OwnRows.export`."""
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


class OwnRows:
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
        width = self.copies * self.dim
        dtype = NUMPY_DTYPES[problem.dtype]
        check_budget(budget, self.n_items, width, dtype.itemsize)
        n_users = problem.histories.n_slots
        self.arena = Arena(n_users * self.n_items, width, dtype, budget // 2)
        self.items: list[Ids] = [EMPTY] * n_users
        self.rows: list[Ids] = [EMPTY] * n_users
        self.steps = torch.zeros(n_users, dtype=torch.int64)
        self.values: Arena = self.arena

    def forget(self, slots: torch.Tensor) -> None:
        """Sets clients' rows back to zero, with fresh moments."""
        for slot in slots.tolist():
            rows = self.rows[slot]
            self.arena.write(rows, np.zeros((len(rows), self.arena.width), dtype=self.arena.dtype))
        self.steps[slots.cpu()] = 0

    def checkout(self, slots: torch.Tensor, keys: torch.Tensor) -> OwnBlock:
        """Rows for `keys` (client in the block * n_items + item, ascending, distinct), made where new."""
        device, ids = self.problem.device, slots.tolist()
        wanted = keys.cpu().numpy()
        owner = wanted // self.n_items
        bounds = np.searchsorted(owner, np.arange(len(ids) + 1))
        rows = np.empty(len(wanted), dtype=np.int64)
        for c, slot in enumerate(ids):
            part = slice(bounds[c], bounds[c + 1])
            rows[part] = self._rows_of(slot, wanted[part] - c * self.n_items)
        if self.fresh:
            self.steps[slots.cpu()] = 0
            data = torch.zeros(len(rows), self.arena.width, dtype=self.problem.dtype, device=device)
        else:
            data = torch.from_numpy(self.arena.read(rows)).to(device)
        parts = [p.contiguous() for p in data.split(self.dim, dim=1)]
        moments = (parts[1], parts[2]) if self.copies == 3 else None
        steps = self.steps[slots.cpu()].to(device)
        return OwnBlock(keys, torch.from_numpy(owner).to(device), parts[0], moments, steps, rows)

    def _rows_of(self, slot: int, items: Ids) -> Ids:
        """Arena rows of one client's items; a fresh client's former rows are used again."""
        if self.fresh:
            spare = self.rows[slot]
            if len(spare) < len(items):
                spare = np.concatenate([spare, self.arena.allocate(len(items) - len(spare))])
            self.items[slot], self.rows[slot] = items, spare[: len(items)]
            return self.rows[slot]
        merged = np.union1d(self.items[slot], items)
        if len(merged) > len(self.items[slot]):
            rows = np.empty(len(merged), dtype=np.int64)
            known = np.isin(merged, self.items[slot], assume_unique=True)
            rows[known] = self.rows[slot]
            rows[~known] = self.arena.allocate(int((~known).sum()))
            self.items[slot], self.rows[slot] = merged, rows
        return self.rows[slot][np.searchsorted(self.items[slot], items)]

    def update(self, block: OwnBlock, touched: torch.Tensor, grad: torch.Tensor) -> None:
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

    def checkin(self, slots: torch.Tensor, block: OwnBlock) -> None:
        """Writes a block's rows back."""
        parts = [block.values, *(block.moments or ())]
        self.arena.write(block.rows, torch.cat(parts, dim=1).cpu().numpy())
        self.steps[slots.cpu()] = block.steps.cpu()

    def dense(self, slots: torch.Tensor) -> torch.Tensor:
        """Values of a few clients for evaluation, `[B, n_items, d]`, zero where untouched (or lost)."""
        out = np.zeros((len(slots) * self.n_items, self.dim), dtype=self.arena.dtype)
        if self.lost:
            return torch.from_numpy(out).view(len(slots), self.n_items, self.dim).to(self.problem.device)
        ids = slots.tolist()
        at = [self.items[slot] + c * self.n_items for c, slot in enumerate(ids)]
        rows = [self.rows[slot] for slot in ids]
        out[np.concatenate(at)] = self.values.read(np.concatenate(rows), self.dim)
        return torch.from_numpy(out).view(len(slots), self.n_items, self.dim).to(self.problem.device)

    def export(self) -> dict[str, torch.Tensor]:
        """All rows as tensors: `own.sizes [n_slots]`, `own.items [T]`, `own.values [T, d]`."""
        rows = np.concatenate([EMPTY, *self.rows])
        return {
            "own.sizes": torch.tensor([len(items) for items in self.items]),
            "own.items": torch.from_numpy(np.concatenate([EMPTY, *self.items])),
            "own.values": torch.from_numpy(self.values.read(rows, self.dim)),
        }

    def training_state(self) -> dict[str, torch.Tensor]:
        """Everything that training goes on from: as `export`, with moments `[T, copies * d]`, and each slot's steps."""
        rows = np.concatenate([EMPTY, *self.rows])
        return self.export() | {"own.values": torch.from_numpy(self.arena.read(rows)), "own.steps": self.steps}

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts it back."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        self.arena = Arena(len(self.items) * self.n_items, self.arena.width, self.arena.dtype, self.budget // 2)
        rows = self.arena.allocate(len(items))
        self.arena.write(rows, state["own.values"].cpu().numpy())
        self.items, self.rows = np.split(items, sizes), np.split(rows, sizes)
        self.steps.copy_(state["own.steps"])
        self.values = self.arena

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts exported rows in force for evaluation."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        self.values = Arena(max(len(items), 1), self.dim, self.arena.dtype, self.budget)
        rows = self.values.allocate(len(items))
        self.values.write(rows, state["own.values"].cpu().numpy())
        self.items, self.rows = np.split(items, sizes), np.split(rows, sizes)

    def snapshot(self) -> OwnSnapshot:
        """A copy of every value (not the moments), kept within the same kind of budget."""
        used = self.arena.used
        copy = Arena(max(used, 1), self.dim, self.arena.dtype, self.budget // 4)
        copy.allocate(used)
        for begin in range(0, used, 1 << 16):
            rows = np.arange(begin, min(used, begin + (1 << 16)), dtype=np.int64)
            copy.write(rows, self.arena.read(rows, self.dim))
        return OwnSnapshot(list(self.items), list(self.rows), copy, used)

    def load_snapshot(self, state: Mapping[str, torch.Tensor]) -> OwnSnapshot:
        """A snapshot from its tensors."""
        sizes = np.cumsum(state["own.sizes"].cpu().numpy())[:-1]
        items = state["own.items"].cpu().numpy()
        copy = Arena(max(len(items), 1), self.dim, self.arena.dtype, self.budget // 4)
        rows = copy.allocate(len(items))
        copy.write(rows, state["own.values"].cpu().numpy())
        return OwnSnapshot(np.split(items, sizes), np.split(rows, sizes), copy, len(items))

    def restore(self, snapshot: OwnSnapshot) -> None:
        """Puts a snapshot's values in force for evaluation; training must not go on afterwards."""
        self.items, self.rows, self.values = list(snapshot.items), list(snapshot.rows), snapshot.values
