"""What a source of data gives before any filter or split: rows of interactions and features keyed by raw token.

RecBole's Dataset is the host that filters, maps tokens to ids and hands parts to its models; a source only says
where the rows come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.registry import Registry

USER, ITEM, RATING, TIME, LABEL = "user", "item", "rating", "timestamp", "split_label"


class Source(ABC):
    """One data set at its origin.

    Attributes:
        name: as used with `--datasets`. kind: one word for listings.
        min_interactions: users with fewer distinct items are dropped (section 6); 0 = the preparation did it.
    """

    kind: ClassVar[str]
    min_interactions: ClassVar[int] = 5

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def interactions(self) -> pd.DataFrame:
        """Columns `user`, `item` (str), `timestamp` (int64 or float64), `rating` (float) and, if labelled, `split_label`."""

    @abstractmethod
    def features(self) -> list[TokenFeatures]:
        """Item features, one entry per modality; may be empty."""

    def data_path(self) -> str | None:
        """Folder that contains the folder of RecBole's atomic files; None when RecBole is to use its own."""
        return None

    def facts(self) -> dict[str, str | int | float]:
        """Notes for the manifest; no absolute paths."""
        return {"source": self.kind}


SourceFactory = Callable[[], Source]
"""What the registry holds: a subclass of `Source` that takes no arguments, or a function that makes a source."""
SOURCES: Registry[SourceFactory] = Registry("data source", "fedvlr_plugin.sources")
"""Data sets that are code: the name that `--datasets` takes, and how the source is made."""
