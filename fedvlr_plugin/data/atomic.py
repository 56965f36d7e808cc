"""Any data set in RecBole's atomic files, with feature files beside them, and the packaged ml-100k.

    DIR/<name>/<name>.inter          RecBole reads it
    DIR/<name>/<modality>_features.npy + <modality>_features.tokens    one raw item token a line, in row order

ml-100k lies in RecBole's package; its modalities are made here: `text` (TF-IDF + SVD of the title) and `genres` (one
column a genre). Imports `source`, `released` (the matrix reader) and, when called, `features.tfidf` and RecBole.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.data.released import RENAMED, SUFFIX, load_matrix
from fedvlr_plugin.data.source import Source
from fedvlr_plugin.errors import DataError


class AtomicSource(Source):
    """A folder `<root>/<name>` with `<name>.inter`."""

    kind: ClassVar[str] = "RecBole atomic files"
    atomic: ClassVar[bool] = True

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder

    @staticmethod
    def found_in(folder: Path) -> bool:
        """Whether the folder holds atomic files of its own name."""
        return (folder / f"{folder.name}.inter").is_file()

    def interactions(self) -> pd.DataFrame:
        """Not used: RecBole reads the atomic files."""
        raise DataError(f"data set '{self.name}' is read by RecBole; open it with open_dataset")

    def data_path(self) -> str | None:
        return str(self.folder.parent)

    def features(self) -> list[TokenFeatures]:
        """See `Source`. Raises `DataError` when a feature file lacks its tokens or their numbers differ."""
        out = []
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            where = f"{self.name}/{file.name}"
            matrix = load_matrix(file, where)
            beside = file.with_suffix(".tokens")
            if not beside.is_file():
                raise DataError(f"{where} has no {beside.name} beside it: one raw item token a line, in row order")
            tokens = tuple(beside.read_text(encoding="utf-8").split("\n"))
            tokens = tokens[:-1] if tokens and not tokens[-1] else tokens
            if len(tokens) != len(matrix):
                raise DataError(
                    f"{where} has {len(matrix)} rows and {beside.name} {len(tokens)} tokens; they must agree"
                )
            short = file.name.removesuffix(SUFFIX)
            out.append(TokenFeatures(RENAMED.get(short, short), tokens, matrix, file.name))
        return out


class PackagedMovieLens(AtomicSource):
    """ml-100k from the installed RecBole package: real data, no download."""

    kind: ClassVar[str] = "ml-100k of the RecBole package"

    def __init__(self) -> None:
        spec = find_spec("recbole")
        if spec is None or spec.origin is None:
            raise DataError("the packaged ml-100k needs recbole; install it with: pip install recbole")
        super().__init__("ml-100k", Path(spec.origin).parent / "dataset_example" / "ml-100k")

    def data_path(self) -> str | None:
        return None

    def features(self) -> list[TokenFeatures]:
        from fedvlr_plugin.features.tfidf import tfidf_svd

        items = pd.read_csv(self.folder / "ml-100k.item", sep="\t", dtype=str, keep_default_na=False)
        items.columns = [column.split(":")[0] for column in items.columns]
        tokens = tuple(items["item_id"])
        titled = items[items["movie_title"].str.strip() != ""]
        text = tfidf_svd(titled["movie_title"].tolist())
        classes = [row.split() for row in items["class"]]
        genres = sorted({genre for row in classes for genre in row})
        column = {genre: k for k, genre in enumerate(genres)}
        matrix = np.zeros((len(items), len(genres)), dtype=np.float32)
        for i, row in enumerate(classes):
            matrix[i, [column[genre] for genre in row]] = 1.0
        return [
            TokenFeatures("text", tuple(titled["item_id"]), text, "TF-IDF + SVD of the title"),
            TokenFeatures("genres", tokens, matrix, "class column, one column a genre"),
        ]
