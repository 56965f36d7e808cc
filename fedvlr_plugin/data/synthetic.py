"""Generate data sets: one of a chosen size for measurements, and one with a known structure.

`generated`: activity and popularity are heavy-tailed, as in the paper's data sets; the features are Gaussian noise.
`PlantedSource`: users weight vision, text and collaborative signal differently, and these weights are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality, TokenFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER, Source
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
    """Generate a data set with given numbers of users, items and distinct interactions.

    Every user has one validation item, one test item and at least three training items; the other interactions follow
    a heavy-tailed activity.

    Args:
        n_users: at least 1.
        n_items: at least 8.
        n_interactions: at least 5 for each user.
        seed: of the random numbers.
        modalities: names.
        width: of each modality.

    Raises:
        ConfigError: the numbers cannot be met.
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
    present = np.ones(n_items, dtype=np.bool_)
    features = [
        Modality(name, source.standard_normal((n_items, width), dtype=np.float32), present, "generated")
        for name in modalities
    ]
    name = f"generated-{n_users}x{n_items}"
    return PreparedData(name, interactions, ItemFeatures(features), {"source": "generated", "seed": seed})


def _spread(weights: npt.NDArray[np.float64], total: int, most: int) -> npt.NDArray[np.int64]:
    """Distribute `total` over users in proportion to their weights, at most `most` each."""
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


SIGNALS = ("vision", "text", "id")


class PlantedSource(Source):
    """Users who weight vision, text and collaborative signal differently, with known weights.

    Item i has three independent latent vectors z_m in R^k, one per signal m in (vision, text, id). The vision and the
    text feature matrices are random linear maps of their vectors plus noise. There are no features of the third signal: it
    can only be learned from the interactions. User u has a taste t_um for each signal and weights a_u ~ Dirichlet(alpha),
    and interacts with the items of highest

        sum_m a_um * sqrt(k) * cos(t_um, z_mi) + noise (Gumbel)

    in a random order in time. All values are determined by the arguments.

    Args:
        n_users: number of users.
        n_items: number of items.
        per_user: mean number of interactions of a user; the numbers vary by a third.
        latent: k, width of the latent vectors.
        width: of the feature matrices.
        concentration: alpha; a small value makes most users rely on one signal.
        noise: scale of the Gumbel noise.
        seed: of the random numbers.
    """

    kind: ClassVar[str] = "generated, weights known"

    def __init__(
        self,
        n_users: int = 300,
        n_items: int = 400,
        per_user: int = 30,
        latent: int = 4,
        width: int = 24,
        concentration: float = 0.35,
        noise: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__("planted")
        source = np.random.default_rng(seed)
        self.weights: npt.NDArray[np.float64] = source.dirichlet(np.full(3, concentration), n_users)
        self.parameters = {"n_users": n_users, "n_items": n_items, "per_user": per_user, "seed": seed}
        items = source.standard_normal((3, n_items, latent))
        tastes = source.standard_normal((3, n_users, latent))
        alike = np.einsum("muk,mik->mui", _unit(tastes), _unit(items)) * np.sqrt(latent)
        scores = np.einsum("um,mui->ui", self.weights, alike) + noise * source.gumbel(size=(n_users, n_items))
        sizes = source.integers(per_user - per_user // 3, per_user + per_user // 3 + 1, n_users)
        self._features = []
        for m, name in enumerate(SIGNALS[:2]):
            shown = items[m] @ source.standard_normal((latent, width))
            matrix = (shown + 0.1 * source.standard_normal(shown.shape)).astype(np.float32)
            tokens = tuple(f"i{i}" for i in range(n_items))
            self._features.append(TokenFeatures(name, tokens, matrix, "planted"))
        rows = []
        for user, size in enumerate(sizes.tolist()):
            taken = source.permutation(np.argsort(-scores[user], kind="stable")[:size])
            rows += [(f"u{user}", f"i{item}", float(when)) for when, item in enumerate(taken.tolist())]
        self._frame = pd.DataFrame(rows, columns=[USER, ITEM, TIME])
        self._frame[RATING] = 1.0

    def interactions(self) -> pd.DataFrame:
        return self._frame.copy()

    def features(self) -> list[TokenFeatures]:
        return list(self._features)

    def weights_of(self, user_tokens: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """Return the known weights (vision, text, id) in the order of the given user tokens, `[n_users, 3]`."""
        return self.weights[[int(token.removeprefix("u")) for token in user_tokens]]

    def facts(self) -> dict[str, str | int | float]:
        return {"source": self.kind, **self.parameters}


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
