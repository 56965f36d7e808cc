"""The paper's released layout: `inter.csv` with split labels, `<name>_features.npy` in the order of itemID.

    inter.csv: userID,itemID,rating,timestamp,split_label   (0 train, 1 valid, 2 test; comma or tab separated)

`image_features.npy` holds the modality `vision`, `text_features.npy` holds `text`; other modalities keep the name of
their file. Without a column `split_label` the data set is split in time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.item_features import FloatMatrix, TokenFeatures
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.arrays import SUFFIX, feature_files, load_array
from fedvlr_plugin.data.reading.tables import Table, read_table
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER, Source
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.files import read_json

INTER_FILE = "inter.csv"
RENAMED = {"image": "vision"}
LABELS = ("x_label", "split_label")
PAPERS_OWN = "the paper's own CLIP ViT-B-32 features of KU"
KNOWN_VALUES = {  # `values_hash` of feature files that the authors released without a manifest
    "cdd3678de3c4ac942dcddcc26f6f8393541100f2dae72cc282a9077dc21dc64d": PAPERS_OWN,
    "4064de4a0873bce24d5eac12c74157c0b5c6c220671463646486b57983afb42d": PAPERS_OWN,
}
NEEDED = ("userID", "itemID", "timestamp")


class ReleasedSource(Source):
    """A data set in the released layout.

    Args:
        name: of the data set.
        folder: of its files.
    """

    kind: ClassVar[str] = "released layout"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder
        self._frame: pd.DataFrame | None = None

    @staticmethod
    def found_in(folder: Path) -> bool:
        """Return whether the folder has this layout."""
        return (folder / INTER_FILE).is_file()

    def interactions(self) -> pd.DataFrame:
        """Read the interactions.

        Raises:
            DataError: a line cannot be used; the message names the first one.
        """
        if self._frame is None:
            self._frame = self._read()
        return self._frame.copy()

    def _read(self) -> pd.DataFrame:
        where = f"{self.name}/{INTER_FILE}"
        table = read_table(self.folder / INTER_FILE, where, needed=NEEDED)
        table.require(
            NEEDED, f"needed are {', '.join(NEEDED)}, optional rating and split_label (0 train, 1 valid, 2 test)"
        )
        items = columns.whole_ids(table, "itemID")
        frame = pd.DataFrame({USER: columns.whole_ids(table, "userID"), ITEM: items}, dtype=object)
        frame[RATING] = columns.numbers(table, "rating") if "rating" in table else 1.0
        frame[TIME] = columns.times(table, "timestamp")
        if (label := _label_column(table)) is not None:
            frame[LABEL] = columns.labels(table, label)
        self.n_rows = max(map(int, set(items))) + 1
        return frame

    def features(self) -> list[TokenFeatures]:
        """Read the feature files.

        Raises:
            DataError: a matrix does not have a vector for each itemID.
        """
        self.interactions()
        out = []
        for file in feature_files(self.folder, modality_of):
            matrix = load_matrix(file, f"{self.name}/{file.name}")
            if len(matrix) != self.n_rows:
                raise DataError(
                    f"{self.name}/{file.name} has {len(matrix)} rows, but {INTER_FILE} has itemIDs 0..{self.n_rows - 1}; "
                    f"row = itemID, so {self.n_rows} rows are needed"
                )
            tokens = tuple(str(i) for i in range(len(matrix)))
            out.append(TokenFeatures(modality_of(file.name.removesuffix(SUFFIX)), tokens, matrix, feature_label(file)))
        return out


def _label_column(table: Table) -> str | None:
    """Return the name of the column with the split; if both names of `LABELS` occur, their values must agree."""
    present = [name for name in LABELS if name in table]
    if len(present) > 1:
        one, other = (columns.labels(table, name) for name in present)
        if (differing := np.flatnonzero(one != other)).size:
            row = int(differing[0])
            raise DataError(
                f"{table.at(row)}: {present[0]} is {one[row]} and {present[1]} {other[row]}; keep one of the columns"
            )
    return present[-1] if present else None


def load_matrix(file: Path, where: str) -> FloatMatrix:
    """Read a numeric matrix from a `.npy` file as float32, without unpickling.

    Args:
        file: the `.npy` file.
        where: name of the file for messages.

    Raises:
        DataError: the file is not a numeric matrix.
    """
    matrix = load_array(file, where)
    real = np.issubdtype(matrix.dtype, np.number) and not np.issubdtype(matrix.dtype, np.complexfloating)
    if matrix.ndim != 2 or not real:
        raise DataError(f"{where} must be a numeric matrix [n_items, width], got {matrix.dtype} {list(matrix.shape)}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
        out: FloatMatrix = matrix.astype(np.float32)
    return out


def modality_of(stem: str) -> str:
    """Return the modality of `<stem>_features.npy`."""
    return RENAMED.get(stem, stem)


def feature_label(file: Path) -> str:
    """Describe the origin of a feature file: known by its hash, else from its manifest, else unknown."""
    digest = values_hash(load_array(file, file.name))
    manifest = manifest_of(file)
    if digest in KNOWN_VALUES:
        return KNOWN_VALUES[digest]
    if manifest is None:
        return f"{file.name}, of unknown origin"
    if digest != manifest.get("sha256_of_values"):
        return f"{file.name}, of unknown origin (its manifest belongs to other values)"
    return str(manifest.get("label"))


def manifest_of(file: Path) -> dict[str, object] | None:
    """Read the manifest of a feature file; None if there is none. Raise `DataError` if it is damaged."""
    beside = file.with_suffix(".json")
    return read_json(beside) if beside.is_file() else None


def values_hash(matrix: npt.NDArray[np.generic]) -> str:
    """Compute `sha256_of_values` of a manifest: the hash of the matrix as float16 in row-major order."""
    with np.errstate(over="ignore"):
        return hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f2").tobytes()).hexdigest()
