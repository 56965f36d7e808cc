"""Generated data of a chosen size, for speed and memory measurements. Nothing can be learned from it.

Activity and popularity are heavy-tailed, as in the paper's sets; features are Gaussian. Imports the data room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError

SIZES = {
    "ku": (204, 560, 3_488),
    "ml": (610, 3_650, 90_274),
    "movie": (15_908, 2_528, 111_091),
}


def generated(
    n_users: int,
    n_items: int,
    n_interactions: int,
    *,
    seed: int = 0,
    modalities: Sequence[str] = ("vision", "text"),
    width: int = 512,
) -> PreparedData:
    """A data set with the given numbers of users, items and distinct interactions.

    Every user has one validation and one test item and at least three training items, the rest of the
    interactions is spread by heavy-tailed activity. Raises `ConfigError` when the numbers cannot be met.
    """
    spare = n_interactions - 5 * n_users
    if spare < 0 or n_items < 8:
        raise ConfigError(
            f"generated data needs at least 5 interactions per user and 8 items, got {n_interactions} interactions "
            f"for {n_users} users and {n_items} items"
        )
    source = np.random.default_rng(seed)
    room = max(1, n_items // 2 - 5)
    sizes = 3 + _spread(source.pareto(1.3, n_users) + 0.1, spare, room)
    popularity = source.pareto(0.8, n_items) + 0.05
    users, items = [], []
    scores = np.log(popularity)
    for user, size in enumerate(sizes.tolist()):
        # the largest of popularity times exponential noise: weighted draws without replacement
        keys = scores - np.log(source.exponential(size=n_items))
        items.append(np.argpartition(-keys, size + 1)[: size + 2])
        users.append(np.full(size + 2, user))
    labels = [np.r_[1, 2, np.zeros(size, dtype=np.int64)] for size in sizes.tolist()]
    interactions = Interactions.from_labels(
        np.concatenate(users),
        np.concatenate(items),
        np.concatenate(labels),
        tuple(f"u{u}" for u in range(n_users)),
        tuple(f"i{i}" for i in range(n_items)),
    )
    everything = np.ones(n_items, dtype=np.bool_)
    features = [
        Modality(name, source.standard_normal((n_items, width), dtype=np.float32), everything, "generated")
        for name in modalities
    ]
    name = f"generated-{n_users}x{n_items}"
    return PreparedData(name, interactions, ItemFeatures(features), {"source": "generated", "seed": seed})


def _spread(weights: npt.NDArray[np.float64], total: int, most: int) -> npt.NDArray[np.int64]:
    """Splits `total` over users in proportion to weights, at most `most` each."""
    if total > most * len(weights):
        raise ConfigError(f"{total} further interactions do not fit {len(weights)} users with {most} free items each")
    out = np.zeros(len(weights), dtype=np.int64)
    left = total
    while left > 0:
        open_users = np.flatnonzero(out < most)
        share = weights[open_users] / weights[open_users].sum()
        more = np.minimum(np.floor(share * left).astype(np.int64), most - out[open_users])
        if more.sum() == 0:
            more[np.argsort(-share, kind="stable")[:left]] = 1
        out[open_users] += more
        left = total - int(out.sum())
    return out
