"""A generated data set whose users truly weigh vision, text and collaborative signal differently, weights known.

Item i has three independent latent vectors z_m in R^k, one per signal m in (vision, text, id). The vision and the
text feature matrix show theirs through a random linear map plus noise; nothing shows the third one, it can only be
learned from who interacts with what. User u has a taste t_um per signal and weights a_u ~ Dirichlet(alpha); it takes
the items with the highest

    sum_m a_um * sqrt(k) * cos(t_um, z_mi) + noise (Gumbel)

in a random order of time. For tests and demonstrations. Imports `source`, `item_features`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER, Source

SIGNALS = ("vision", "text", "id")


class PlantedSource(Source):
    """See the module; every number follows from the arguments."""

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
        """Planted weights (vision, text, id) in the order of a data set's users, `[n_users, 3]`."""
        return self.weights[[int(token.removeprefix("u")) for token in user_tokens]]

    def facts(self) -> dict[str, str | int | float]:
        return {"source": self.kind, **self.parameters}


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
