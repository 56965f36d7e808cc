"""Growing storage of rows of numbers: memory up to a budget, a memory-mapped scratch file beyond.

Both parts are mapped lazily at their largest possible size, so that rows never move; the scratch file's pages are
dropped from the process after use. Imports nothing of ours.
"""

from __future__ import annotations

import mmap
import tempfile

import numpy as np
import numpy.typing as npt

FloatType = np.dtype[np.float32] | np.dtype[np.float64]
FloatRows = npt.NDArray[np.float64]  # or float32
Ids = npt.NDArray[np.int64]


class Arena:
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
