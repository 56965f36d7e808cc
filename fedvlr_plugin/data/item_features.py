"""Dense item features keyed by raw item token, one matrix per named modality.

`TokenFeatures` is the content of a file: vectors of some items, in any order. `align` turns it into a `Modality`, whose
vectors follow the items of a data set; missing ones are imputed by the modality's mean (the paper's rule for missing
images).
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
        matrix: float32 `[n_items, m]`, finite; vector i belongs to item i.
        present: bool `[n_items]`, false if the vector is the imputed mean.
        source: origin of the values, one line, for manifests.
        recipe: identifies features that are computed when they are needed, since their values may differ by rounding
            between processors. Empty for features that are read from a file.
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
        """Share of items with a vector of their own, 0..1."""
        return float(self.present.mean())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of name, shape and values, or of name, shape and recipe if there is one."""
        digest = hashlib.sha256(f"modality/1 {self.name} {self.matrix.shape} {self.recipe}".rstrip().encode())
        if not self.recipe:
            digest.update(np.ascontiguousarray(self.matrix, dtype="<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """A feature matrix keyed by raw item token.

    Attributes:
        name: of the modality.
        tokens: raw item tokens, distinct, `[n]`.
        matrix: `[n, m]`, finite; `matrix[k]` belongs to `tokens[k]`.
        source: as in `Modality`.
        recipe: as in `Modality`.

    Raises:
        DataError: shapes do not match, a value is not finite, or a token occurs twice.
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
        """Order the vectors by the items of a data set; items without a vector get the mean of the others.

        Args:
            item_tokens: raw tokens of the items, `[n_items]`.

        Raises:
            DataError: no item has a vector.
        """
        positions = {token: position for position, token in enumerate(self.tokens)}
        rows = np.array([positions.get(token, -1) for token in item_tokens], dtype=np.int64)
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
    """The modalities of one data set by name, in a fixed order; may be empty (ID only).

    Raises:
        DataError: two modalities have the same name, or different numbers of items.
    """

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
        """Return the named modalities, in the given order; raise `UnknownNameError` for an unknown name."""
        return ItemFeatures([self[name] for name in names])
