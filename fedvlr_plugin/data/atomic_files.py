"""Read data sets in RecBole's atomic files with their feature files, and the ml-100k of the RecBole package.

    DIR/<name>/<name>.inter          an optional column split_label:float (0, 1, 2) gives the split
    DIR/<name>/<modality>_features.npy + <modality>_features.tokens    one raw item token in a line, in the order of the matrix

The modalities of the packaged ml-100k are computed here: `text` (TF-IDF + SVD of the title) and `genres` (a column for
each genre).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.arrays import SUFFIX, feature_files, read_tokens
from fedvlr_plugin.data.reading.atomic import ADVICE, AtomicTable, read_atomic
from fedvlr_plugin.data.reading.names import file_in
from fedvlr_plugin.data.released_layout import feature_label, load_matrix, modality_of
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER, Source
from fedvlr_plugin.errors import DataError

NEEDED = ("user_id", "item_id", "timestamp")


class AtomicSource(Source):
    """A data set in a folder `<root>/<name>` with `<name>.inter`.

    Args:
        name: of the data set.
        folder: of its files.
    """

    kind: ClassVar[str] = "RecBole atomic files"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder

    @staticmethod
    def found_in(folder: Path) -> bool:
        """Return whether the folder holds atomic files of its own name."""
        return file_in(folder, f"{folder.name}.inter") is not None

    @property
    def inter_file(self) -> Path:
        """The file `<name>.inter`; its name may have another Unicode form than the folder's."""
        file = f"{self.name}.inter"
        return file_in(self.folder, file) or self.folder / file

    def read(
        self,
        needed: tuple[str, ...] = NEEDED,
        *,
        separator: str = "\t",
        encoding: str = "utf-8",
        advice: str = ADVICE,
    ) -> AtomicTable:
        """Read all interactions as text and check them; arguments and errors are those of `read_atomic`."""
        where = f"{self.name}/{self.inter_file.name}"
        return read_atomic(self.inter_file, where, needed, separator=separator, encoding=encoding, advice=advice)

    def interactions(self) -> pd.DataFrame:
        """Read the interactions; `rating` and `split_label` are present if the file has them.

        Raises:
            DataError: the file cannot be used, see `read_atomic`.
        """
        table = self.read(advice="export and features need these very names; rename the columns").table
        frame = pd.DataFrame(
            {USER: columns.tokens(table, "user_id"), ITEM: columns.tokens(table, "item_id")}, dtype=object
        )
        if "rating" in table:
            frame[RATING] = columns.numbers(table, "rating")
        frame[TIME] = columns.times(table, "timestamp")
        if LABEL in table:
            frame[LABEL] = columns.labels(table, LABEL)
        return frame

    def data_path(self) -> str | None:
        return str(self.folder.parent)

    def features(self) -> list[TokenFeatures]:
        """Read the feature files.

        Raises:
            DataError: a feature file has no token file, or another number of tokens.
        """
        out = []
        for file in feature_files(self.folder, modality_of):
            where = f"{self.name}/{file.name}"
            matrix = load_matrix(file, where)
            beside = file.with_suffix(".tokens")
            if not beside.is_file():
                raise DataError(f"{where} has no {beside.name} beside it: one raw item token a line, in row order")
            tokens = read_tokens(beside, f"{self.name}/{beside.name}")
            if len(tokens) != len(matrix):
                raise DataError(
                    f"{where} has {len(matrix)} rows and {beside.name} {len(tokens)} tokens; they must agree"
                )
            out.append(TokenFeatures(modality_of(file.name.removesuffix(SUFFIX)), tokens, matrix, feature_label(file)))
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
        from fedvlr_plugin.data.tfidf import tfidf_recipe, tfidf_svd

        items = read_atomic(
            self.folder / "ml-100k.item", "ml-100k/ml-100k.item", ("item_id", "movie_title", "class")
        ).table
        tokens = tuple(items["item_id"])
        titled = [(token, title) for token, title in zip(tokens, items["movie_title"], strict=True) if title.strip()]
        titles = [title for _, title in titled]
        classes = [row.split() for row in items["class"]]
        genres = sorted({genre for row in classes for genre in row})
        column = {genre: k for k, genre in enumerate(genres)}
        matrix = np.zeros((len(tokens), len(genres)), dtype=np.float32)
        for i, row in enumerate(classes):
            matrix[i, [column[genre] for genre in row]] = 1.0
        return [
            TokenFeatures(
                "text",
                tuple(token for token, _ in titled),
                tfidf_svd(titles),
                "TF-IDF + SVD of the title",
                tfidf_recipe(titles),
            ),
            TokenFeatures("genres", tokens, matrix, "class column, one column a genre"),
        ]
