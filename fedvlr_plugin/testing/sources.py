"""The suite of data sources: columns, tokens, features, and the way through RecBole."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from fedvlr_plugin.data.catalogue import available, find_source
from fedvlr_plugin.data.recbole.loader import open_dataset
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER


class SourceTests:
    """Inherit it as `class TestMine(SourceTests)` and set `source`.

    Class attributes:
        source: name of the data set, as `--datasets` takes it.
    """

    source: ClassVar[str]

    def test_it_is_listed(self) -> None:
        assert self.source in available()

    def test_interactions_have_the_columns(self) -> None:
        frame = find_source(self.source).interactions()
        assert {USER, ITEM, TIME, RATING} <= set(frame.columns) and len(frame)
        assert all(isinstance(token, str) for column in (USER, ITEM) for token in frame[column])
        assert all(pd.api.types.is_float_dtype(frame[column]) for column in (TIME, RATING))
        assert not frame[[USER, ITEM, TIME, RATING]].isna().any().any()
        if LABEL in frame:
            assert set(frame[LABEL]) <= {0, 1, 2}

    def test_features_are_finite_and_keyed_by_items(self) -> None:
        source = find_source(self.source)
        items = set(source.interactions()[ITEM])
        names = []
        for modality in source.features():
            names.append(modality.name)
            assert modality.matrix.ndim == 2 and len(modality.matrix) == len(modality.tokens)
            assert bool(np.isfinite(modality.matrix).all())
            assert items & set(modality.tokens), f"no item of the interactions has {modality.name} features"
        assert len(set(names)) == len(names)

    def test_it_goes_through_recbole_twice_the_same(self) -> None:
        one, other = open_dataset(self.source).prepared, open_dataset(self.source).prepared
        assert one.fingerprint == other.fingerprint
        assert one.interactions.n_users > 0 and one.interactions.n_items > 1
        assert (one.interactions.train_sizes >= 1).all()
