"""Any data set in RecBole's atomic files, with feature files beside them, and the packaged ml-100k.

    DIR/<name>/<name>.inter          RecBole reads it; a column split_label:float (0, 1, 2) is the split, if it is there
    DIR/<name>/<modality>_features.npy + <modality>_features.tokens    one raw item token a line, in row order

ml-100k lies in RecBole's package; its modalities are made here: `text` (TF-IDF + SVD of the title) and `genres` (one
column a genre).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.data.released_layout import RENAMED, SUFFIX, feature_label, load_matrix
from fedvlr_plugin.data.source import Source
from fedvlr_plugin.errors import DataError

TYPES = ("token", "float", "token_seq", "float_seq")


class AtomicSource(Source):
    """A folder `<root>/<name>` with `<name>.inter`."""

    kind: ClassVar[str] = "RecBole atomic files"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder

    @staticmethod
    def found_in(folder: Path) -> bool:
        """Whether the folder holds atomic files of its own name."""
        return (folder / f"{folder.name}.inter").is_file()

    def check(self, needed: tuple[str, ...], separator: str = "\t") -> None:
        """Refuses a `.inter` that RecBole would stumble over.

        Raises:
            DataError: no such file, no rows, a heading without types, or without one of the `needed` columns.
        """
        file = self.folder / f"{self.name}.inter"
        where = f"{self.name}/{file.name}"
        try:
            with file.open(encoding="utf-8") as stream:
                heading, first = stream.readline().rstrip("\r\n"), stream.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{where} cannot be read: {error}") from None
        form = "user_id:token<TAB>item_id:token<TAB>timestamp:float"
        columns = heading.split(separator)
        if not heading:
            raise DataError(f"{where} is empty; its first line must be like {form}")
        if untyped := [column for column in columns if column.rpartition(":")[2] not in TYPES]:
            raise DataError(
                f"{where}: the column '{untyped[0]}' has no type; the first line must be like {form}, "
                f"with types from {', '.join(TYPES)}"
            )
        names = [column.rpartition(":")[0] for column in columns]
        if missing := [field for field in needed if field not in names]:
            raise DataError(
                f"{where} lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}; name them with "
                "USER_ID_FIELD, ITEM_ID_FIELD and TIME_FIELD if they are called otherwise"
            )
        if not first.strip():
            raise DataError(f"{where} has no rows")

    def columns(self, separator: str = "\t") -> list[str]:
        """Names of the columns of `.inter`, without their types."""
        with (self.folder / f"{self.name}.inter").open(encoding="utf-8") as stream:
            return [column.rpartition(":")[0] for column in stream.readline().rstrip("\r\n").split(separator)]

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
            out.append(TokenFeatures(RENAMED.get(short, short), tokens, matrix, feature_label(file)))
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

        items = pd.read_csv(self.folder / "ml-100k.item", sep="\t", dtype=str, keep_default_na=False)
        items.columns = [column.split(":")[0] for column in items.columns]
        tokens = tuple(items["item_id"])
        titled = items[items["movie_title"].str.strip() != ""]
        titles = titled["movie_title"].tolist()
        classes = [row.split() for row in items["class"]]
        genres = sorted({genre for row in classes for genre in row})
        column = {genre: k for k, genre in enumerate(genres)}
        matrix = np.zeros((len(items), len(genres)), dtype=np.float32)
        for i, row in enumerate(classes):
            matrix[i, [column[genre] for genre in row]] = 1.0
        return [
            TokenFeatures(
                "text",
                tuple(titled["item_id"]),
                tfidf_svd(titles),
                "TF-IDF + SVD of the title",
                tfidf_recipe(titles),
            ),
            TokenFeatures("genres", tokens, matrix, "class column, one column a genre"),
        ]
