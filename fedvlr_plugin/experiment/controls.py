"""The shuffled control: the same row on the same data, each item with the features of another item.

What a row gains with the right features over the wrong ones is what content does for it. Widths, norms and the
spread of the features stay as they are; only whose they are is lost. All modalities are permuted alike, so an item's
text still fits its picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError, DataError
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.rng import Stream, bits32, derive

SHUFFLED = "shuffled"
_MARK = f" [{SHUFFLED}]"


def permutation(seed: int, n_items: int) -> IntArray:
    """A permutation of the items, `[n_items]`, a function of the seed alone; ties of the draws go to the smaller id."""
    key = torch.tensor(derive(seed, Stream.CONTROL) & ((1 << 63) - 1))
    draws = bits32(key, torch.arange(n_items))
    order: IntArray = np.argsort(draws.numpy(), kind="stable").astype(np.int64)
    return order


def shuffle_features(data: PreparedData, seed: int) -> PreparedData:
    """The same interactions; item i has the features of item `permutation(seed)[i]`, in all modalities."""
    order = permutation(seed, data.interactions.n_items)
    shuffled = [
        dataclasses.replace(m, matrix=m.matrix[order], present=m.present[order], recipe="")
        for m in data.features.values()
    ]
    return PreparedData(data.name, data.interactions, ItemFeatures(shuffled), dict(data.facts))


def under_control(spec: RunSpec, data: PreparedData) -> PreparedData:
    """The data that a run sees: shuffled where its specification says so.

    Raises:
        ConfigError: the row uses no item features. DataError: the data set has none.
    """
    if spec.control == "none":
        return data
    if not parse_row(spec.row).uses_features:
        raise ConfigError(f"row '{spec.row}' uses no item features, so there is nothing to shuffle; leave control out")
    if not len(data.features):
        raise DataError(f"data set '{data.name}' has no item features to shuffle; leave control out")
    return shuffle_features(data, spec.seed)


def controls_of(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """The shuffled run of every run whose row uses item features, all settings and the seed the same."""
    return [
        spec.model_copy(update={"control": SHUFFLED})
        for spec in specs
        if spec.control == "none" and parse_row(spec.row).uses_features
    ]


def label_of(spec: RunSpec) -> str:
    """The line of the table that a run belongs to: its row, or the row's control."""
    return spec.row if spec.control == "none" else control_label(spec.row)


def control_label(row: str) -> str:
    """`FedAvg+ours [shuffled]`."""
    return f"{row}{_MARK}"


def row_of(label: str) -> str:
    """The row that a line of a table is about, itself or its control."""
    return label.removesuffix(_MARK)


def is_control(label: str) -> bool:
    """Whether a line of a table is a control."""
    return label.endswith(_MARK)
