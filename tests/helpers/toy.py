"""A small data set that shows every edge: unequal clients, an empty one, several modalities."""

from __future__ import annotations

import numpy as np

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData

SIZES = (0, 1, 1, 2, 3, 5, 8, 12, 15)
WIDTHS = {"vision": 7, "text": 5, "audio": 3}


def make_toy(modalities: tuple[str, ...] = ("vision", "text"), n_items: int = 23, seed: int = 0) -> PreparedData:
    """Nine users: one with nothing left to train on, two with a single item, one with most of the items."""
    source = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(SIZES)), SIZES)
    items = np.concatenate([source.choice(n_items, size, replace=False) for size in SIZES])
    held = np.array(
        [source.choice(np.setdiff1d(np.arange(n_items), items[users == u]), 2, False) for u in range(len(SIZES))]
    )
    everyone = np.arange(len(SIZES))
    interactions = Interactions.from_labels(
        np.concatenate([users, everyone, everyone]),
        np.concatenate([items, held[:, 0], held[:, 1]]),
        np.repeat([0, 1, 2], [len(users), len(SIZES), len(SIZES)]),
        tuple(f"u{u}" for u in everyone),
        tuple(f"i{i}" for i in range(n_items)),
    )
    features = [
        Modality(name, source.normal(size=(n_items, WIDTHS[name])).astype(np.float32), np.ones(n_items, bool), "toy")
        for name in modalities
    ]
    return PreparedData("toy", interactions, ItemFeatures(features))
