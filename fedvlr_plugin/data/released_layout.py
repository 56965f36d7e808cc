"""The paper's released layout: `inter.csv` with split labels, `<name>_features.npy` with row = itemID.

    inter.csv: userID,itemID,rating,timestamp,split_label   (0 train, 1 valid, 2 test; comma or tab separated)

`image_features.npy` becomes the modality `vision`, `text_features.npy` is `text`, any other keeps its name. Without
a `split_label` column the split is made here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.item_features import FloatMatrix, TokenFeatures
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER, Source
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.files import read_json

INTER_FILE = "inter.csv"
SUFFIX = "_features.npy"
RENAMED = {"image": "vision"}
COLUMNS = {"userID": USER, "itemID": ITEM, "rating": RATING, "timestamp": TIME, "x_label": LABEL, "split_label": LABEL}
PAPERS_OWN = "the paper's own CLIP ViT-B-32 features of KU"
KNOWN_VALUES = {  # `values_hash` of feature files that the authors released without a manifest
    "cdd3678de3c4ac942dcddcc26f6f8393541100f2dae72cc282a9077dc21dc64d": PAPERS_OWN,
    "4064de4a0873bce24d5eac12c74157c0b5c6c220671463646486b57983afb42d": PAPERS_OWN,
}
NEEDED = ("userID", "itemID", "timestamp")


class ReleasedSource(Source):
    """A folder in the released layout."""

    kind: ClassVar[str] = "released layout"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder
        self._frame: pd.DataFrame | None = None

    @staticmethod
    def found_in(folder: Path) -> bool:
        """Whether the folder has this layout."""
        return (folder / INTER_FILE).is_file()

    def interactions(self) -> pd.DataFrame:
        """See `Source`. Raises `DataError` on an empty file, missing columns, or ids that are no whole numbers."""
        if self._frame is None:
            self._frame = self._read()
        return self._frame.copy()

    def _read(self) -> pd.DataFrame:
        file = self.folder / INTER_FILE
        where = f"{self.name}/{INTER_FILE}"
        try:
            with file.open(encoding="utf-8") as stream:
                first = stream.readline()
            frame = pd.read_csv(file, sep="\t" if "\t" in first else ",")
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise DataError(f"{where} cannot be read as a table: {error}") from None
        missing = [column for column in NEEDED if column not in frame.columns]
        if missing:
            raise DataError(
                f"{where} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}; needed are "
                f"{', '.join(NEEDED)}, optional rating and split_label (0 train, 1 valid, 2 test)"
            )
        if frame.empty:
            raise DataError(f"{where} has no rows")
        frame = frame.rename(columns=COLUMNS)
        frame = frame[[column for column in dict.fromkeys(COLUMNS.values()) if column in frame.columns]]
        for column in (USER, ITEM, *([LABEL] if LABEL in frame else [])):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            if numbers.isna().any() or (numbers % 1 != 0).any() or (numbers < 0).any():
                row = int(np.flatnonzero((numbers.isna() | (numbers % 1 != 0) | (numbers < 0)).to_numpy())[0])
                raise DataError(
                    f"{where}, row {row + 2}: {column} is {frame[column].iloc[row]!r}; whole numbers from 0 are needed "
                    "(itemID is the row of the feature files)"
                )
            frame[column] = numbers.astype(np.int64)
        for column in (TIME, *([RATING] if RATING in frame else [])):
            frame[column] = _finite_numbers(frame, column, where, "timestamp" if column == TIME else "rating")
        if LABEL in frame and not frame[LABEL].isin((0, 1, 2)).all():
            raise DataError(
                f"{where}: split labels must be 0, 1 or 2, got {sorted(frame[LABEL].unique().tolist())[:8]}"
            )
        if RATING not in frame:
            frame[RATING] = 1.0
        self.n_rows = int(frame[ITEM].max()) + 1
        frame[USER], frame[ITEM] = frame[USER].astype(str), frame[ITEM].astype(str)
        return frame

    def features(self) -> list[TokenFeatures]:
        """See `Source`. Raises `DataError` when a matrix has not one row per itemID."""
        self.interactions()
        out = []
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            short = file.name.removesuffix(SUFFIX)
            matrix = load_matrix(file, f"{self.name}/{file.name}")
            if len(matrix) != self.n_rows:
                raise DataError(
                    f"{self.name}/{file.name} has {len(matrix)} rows, but {INTER_FILE} has itemIDs 0..{self.n_rows - 1}; "
                    f"row = itemID, so {self.n_rows} rows are needed"
                )
            tokens = tuple(str(i) for i in range(len(matrix)))
            out.append(TokenFeatures(RENAMED.get(short, short), tokens, matrix, feature_label(file)))
        return out


def _finite_numbers(frame: pd.DataFrame, column: str, where: str, what: str) -> npt.NDArray[np.float64]:
    """A column as float64; raises `DataError` that names the first row which is no finite number."""
    numbers: npt.NDArray[np.float64] = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        row = int(wrong[0])
        got = frame[column].iloc[row]
        raise DataError(f"{where}, row {row + 2}: the {what} is {got!r}; a finite number is needed")
    return numbers


def load_matrix(file: Path, where: str) -> FloatMatrix:
    """A two-dimensional numeric `.npy` as float32; raises `DataError` otherwise. Never unpickles."""
    try:
        matrix = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:  # a damaged header
        raise DataError(f"{where} cannot be read as a numpy array: {error}") from None
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
        raise DataError(f"{where} must be a numeric matrix [n_items, width], got {matrix.dtype} {list(matrix.shape)}")
    out: FloatMatrix = matrix.astype(np.float32)
    return out


def feature_label(file: Path) -> str:
    """Where a feature file comes from: known by its hash, else what its manifest says, else of unknown origin."""
    found = values_hash(np.load(file, allow_pickle=False))
    manifest = manifest_of(file)
    if found in KNOWN_VALUES:
        return KNOWN_VALUES[found]
    if manifest is None:
        return f"{file.name}, of unknown origin"
    if found != manifest.get("sha256_of_values"):
        return f"{file.name}, of unknown origin (its manifest belongs to other values)"
    return str(manifest.get("label"))


def manifest_of(file: Path) -> dict[str, object] | None:
    """What stands in the `.json` beside a feature file; None without one. Raises `DataError` when it is damaged."""
    beside = file.with_suffix(".json")
    return read_json(beside) if beside.is_file() else None


def values_hash(matrix: npt.NDArray[np.generic]) -> str:
    """`sha256_of_values` of a manifest: the matrix as float16, row by row."""
    with np.errstate(over="ignore"):
        return hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f2").tobytes()).hexdigest()
