"""A data set ready to run: split interactions and aligned item features, with a fingerprint.

All other parts of the package receive data in this form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import DataError


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A named, split data set with its item features.

    Attributes:
        name: short name, as used with `--datasets` (e.g. `"ku"`).
        interactions: split histories.
        features: modalities aligned to the items; may be empty.
        facts: notes for the manifest that can be written as JSON (source, recipe, duplicates dropped, ...).
    """

    name: str
    interactions: Interactions
    features: ItemFeatures = field(default_factory=ItemFeatures)
    facts: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for modality in self.features.values():
            if len(modality.matrix) != self.interactions.n_items:
                raise DataError(
                    f"data set '{self.name}': modality '{modality.name}' has {len(modality.matrix)} rows for "
                    f"{self.interactions.n_items} items"
                )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the interactions and every modality."""
        parts = [self.interactions.fingerprint, *(m.fingerprint for m in self.features.values())]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()
