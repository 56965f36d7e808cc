"""Dense item features keyed by raw item token, one matrix per named modality.

`TokenFeatures` is what a file holds (some tokens, in any order); `align` turns it into a `Modality`
whose rows follow a data set's items, with missing rows imputed by the modality's mean (the paper's rule
for missing images).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.errors import DataError, unknown_name

FloatMatrix = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Modality:
    """One modality, aligned to a data set's items.

    Attributes:
        name: e.g. `"text"`, `"image"`, `"genres"`.
        matrix: float32 `[n_items, m]`, finite, row i belongs to item i (0-based).
        present: bool `[n_items]`, false where the row was imputed by the mean.
        source: where the numbers come from, one line, for manifests.
        recipe: for numbers that are computed on the spot, what identifies them in their stead: computed on another
            processor they may differ by rounding, and are still the same features. Empty where the numbers are given.
    """

    name: str
    matrix: FloatMatrix
    present: npt.NDArray[np.bool_]
    source: str = "unknown"
    recipe: str = ""

    @property
    def dim(self) -> int:
        """Width m of the modality."""
        return int(self.matrix.shape[1])

    @property
    def coverage(self) -> float:
        """Share of items with a row of their own, 0..1."""
        return float(self.present.mean())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, shape and values; or recipe, where there is one."""
        digest = hashlib.sha256(f"modality/1 {self.name} {self.matrix.shape} {self.recipe}".rstrip().encode())
        if not self.recipe:
            digest.update(np.ascontiguousarray(self.matrix, dtype="<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """A feature matrix keyed by raw item token: `matrix[k]` belongs to `tokens[k]`, `[n_tokens, m]`.

    `source` and `recipe` as of `Modality`.
    """

    name: str
    tokens: tuple[str, ...]
    matrix: npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.float64]
    source: str = "unknown"
    recipe: str = ""

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[1] == 0:
            raise DataError(f"modality '{self.name}': expected a matrix [n_items, m], got shape {self.matrix.shape}")
        if self.matrix.shape[0] != len(self.tokens):
            raise DataError(
                f"modality '{self.name}' has {self.matrix.shape[0]} rows for {len(self.tokens)} items; "
                "one row per item is needed, in the order of the item tokens"
            )
        bad = ~np.isfinite(self.matrix).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"modality '{self.name}' has NaN or infinite values in {int(bad.sum())} row(s), the first for item "
                f"'{self.tokens[row]}' (row {row}). Drop those rows (they are then imputed by the mean) or recompute them."
            )
        if len(set(self.tokens)) != len(self.tokens):
            raise DataError(f"modality '{self.name}' names an item twice; each token may have one row")

    def align(self, item_tokens: Sequence[str]) -> Modality:
        """Rows in the order of `item_tokens`; items without a row get the mean of those that have one.

        Raises:
            DataError: none of the items has a row.
        """
        where = {token: row for row, token in enumerate(self.tokens)}
        rows = np.array([where.get(token, -1) for token in item_tokens], dtype=np.int64)
        present = rows >= 0
        if not present.any():
            raise DataError(
                f"modality '{self.name}' has a row for none of the {len(item_tokens)} items; its tokens look like "
                f"{list(self.tokens[:3])}, the data set's like {list(item_tokens[:3])}. Key the features by raw item token."
            )
        matrix = np.empty((len(item_tokens), self.matrix.shape[1]), dtype=np.float32)
        matrix[present] = self.matrix[rows[present]]
        matrix[~present] = matrix[present].mean(axis=0, dtype=np.float64)
        return Modality(self.name, matrix, present, self.source, self.recipe)


class ItemFeatures(Mapping[str, Modality]):
    """The modalities of one data set by name, in a fixed order; may be empty (ID only)."""

    def __init__(self, modalities: Sequence[Modality] = ()) -> None:
        names = [m.name for m in modalities]
        if len(set(names)) != len(names):
            raise DataError(f"modality names must differ, got {names}")
        if len({len(m.matrix) for m in modalities}) > 1:
            raise DataError(
                f"modalities differ in the number of items: { {m.name: len(m.matrix) for m in modalities} }"
            )
        self._modalities = {m.name: m for m in modalities}

    def __getitem__(self, name: str) -> Modality:
        if name not in self._modalities:
            raise unknown_name("modality", name, self._modalities)
        return self._modalities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)

    def select(self, names: Sequence[str]) -> ItemFeatures:
        """Only the named modalities, in the given order; raises on a name that is not there."""
        return ItemFeatures([self[name] for name in names])
