"""A 5 x 6 toy for golden tests: one duplicate row, one item that nobody has in training, two modalities."""

import numpy as np
import torch

from fedvlr_plugin.centralized.recbole_dataset import TrainingRows, make_config
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData

PAIRS = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 4), (4, 0)]
DUPLICATE = (0, 0)
SHAPE = (5, 6)


def data(modalities=("text", "vision")):
    users, items = np.array(PAIRS).T
    held = np.arange(5)
    source = np.random.default_rng(0)
    found = Interactions.from_labels(
        np.concatenate([users, held, held]),
        np.concatenate([items, (held + 2) % 6, np.full(5, 5)]),
        np.repeat([0, 1, 2], [len(users), 5, 5]),
        tuple(f"u{i}" for i in range(5)),
        tuple(f"i{i}" for i in range(6)),
    )
    features = [
        Modality(name, source.normal(size=(6, width)).astype(np.float32), np.ones(6, bool))
        for name, width in zip(modalities, (3, 4, 2), strict=False)
    ]
    return PreparedData("toy", found, ItemFeatures(features))


def rows():
    users, items = np.array([*PAIRS, DUPLICATE]).T
    return users.astype(np.int64), items.astype(np.int64)


def build(model_class, modalities=("text", "vision"), with_duplicate=True, **params):
    torch.manual_seed(0)
    prepared = data(modalities)
    config = make_config(model_class, prepared, params, "cpu")
    return model_class(config, TrainingRows(config, prepared, rows() if with_duplicate else None))


def dense(block):
    """Adjacency [[0, B], [B^T, 0]] of a dense block."""
    n_users, n_items = block.shape
    return np.block([[np.zeros((n_users, n_users)), block], [block.T, np.zeros((n_items, n_items))]])


def counted(duplicate_weight):
    r = np.zeros(SHAPE)
    for user, item in PAIRS:
        r[user, item] = 1
    r[DUPLICATE] = duplicate_weight
    return r


def block_of(r, small=0.0):
    """D_u^-1/2 R D_i^-1/2, entry by entry."""
    out = np.zeros(SHAPE)
    for user, item in zip(*np.nonzero(r), strict=True):
        out[user, item] = r[user, item] / np.sqrt((r[user].sum() + small) * (r[:, item].sum() + small))
    return out
