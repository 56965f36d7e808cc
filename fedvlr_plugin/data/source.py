"""The interface of data sources: interactions and features keyed by raw token, before any filter or split.

RecBole's Dataset filters, maps tokens to ids and splits; a source only reads.
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
    """A data set before it is prepared.

    Attributes:
        name: as used with `--datasets`.
        kind: a few words for listings.
        min_interactions: users with fewer distinct items are dropped (algorithm.md section 6); 0 drops nobody.
    """

    kind: ClassVar[str]
    min_interactions: ClassVar[int] = 5

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def interactions(self) -> pd.DataFrame:
        """Read the columns `user`, `item` (str), `timestamp` (int64 or float64), `rating` (float) and optional `split_label`."""

    @abstractmethod
    def features(self) -> list[TokenFeatures]:
        """Read the item features, one entry for each modality; may be empty."""

    def data_path(self) -> str | None:
        """Return the folder that holds the folder of RecBole's atomic files; None if RecBole uses its own."""
        return None

    def facts(self) -> dict[str, str | int | float]:
        """Return notes for the manifest, without absolute paths."""
        return {"source": self.kind}


SourceFactory = Callable[[], Source]
"""A member of the registry: a subclass of `Source` that takes no arguments, or a function that makes a source."""
SOURCES: Registry[SourceFactory] = Registry("data source", "fedvlr_plugin.sources")
"""Data sets defined by code, by the name that `--datasets` takes."""
