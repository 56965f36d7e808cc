"""Make training batches for a RecBole model: pairs with negatives, labelled pairs, or users.

Negatives are uniform over all items or over the items that occur in training (`negative_pool`), and never one of the
user's training items. All random numbers come from a generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from fedvlr_plugin.data.interactions import IntArray, Interactions

Kind = Literal["pairs", "positives", "labelled", "users"]


class NegativeSampler:
    """Draw items that are not in a user's training history.

    Args:
        interactions: the data set.
        pool: items to draw from: all, or those that occur in training.
    """

    def __init__(self, interactions: Interactions, pool: Literal["all_items", "train_items"]) -> None:
        self._n = interactions.n_items
        self._keys = interactions.train_users * self._n + interactions.train_items
        cold = interactions.cold_items
        self._pool = np.arange(self._n) if pool == "all_items" else np.flatnonzero(~cold)
        self.exhausted = interactions.train_sizes >= len(self._pool)
        """`[n_users]`, true for users whose history holds every item of the pool: nothing can be drawn for them."""

    def draw(self, users: IntArray, source: np.random.Generator) -> IntArray:
        """Draw one item for each entry of `users`.

        Args:
            users: `[B]`; none of them may be exhausted.
            source: of the random numbers.
        """
        items: IntArray = self._pool[source.integers(len(self._pool), size=len(users))]
        again = np.flatnonzero(self._taken(users, items))
        while len(again):
            items[again] = self._pool[source.integers(len(self._pool), size=len(again))]
            again = again[self._taken(users[again], items[again])]
        return items

    def _taken(self, users: IntArray, items: IntArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
        keys = users * self._n + items
        positions = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        taken: np.ndarray[Any, np.dtype[np.bool_]] = self._keys[positions] == keys
        return taken


class Batches:
    """The batches of an epoch; negatives and order are drawn anew each time.

    Args:
        kind: what a batch holds: `pairs` (user, positive, negative; each pair `negatives` times), `positives` (user,
            positive, label 1), `labelled` (positives, and `negatives` times as many negatives, with labels), `users`.
        rows: users and items of the training pairs, ids from 0, both `[n]`. If negatives are needed, pairs of
            exhausted users are left out.
        sampler: draws the negatives.
        size: entries in a batch at most.
        negatives: negatives for each positive, at least 1.
        config: RecBole's Config; gives field names and device.
    """

    def __init__(
        self,
        kind: Kind,
        rows: tuple[IntArray, IntArray],
        sampler: NegativeSampler,
        size: int,
        negatives: int,
        config: Any,
    ) -> None:
        self._kind, self._sampler, self._negatives = kind, sampler, negatives
        self._fields = (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["LABEL_FIELD"])
        self._negative_field = config["NEG_PREFIX"] + config["ITEM_ID_FIELD"]
        self._device = config["device"]
        if kind in ("pairs", "labelled"):
            usable = ~sampler.exhausted[rows[0]]
            rows = (rows[0][usable], rows[1][usable])
        if kind == "users":
            rows = (np.unique(rows[0]), np.unique(rows[0]))
        self._rows = rows
        copies = {"pairs": negatives, "labelled": 1 + negatives}.get(kind, 1)
        self._size = max(1, size // copies)

    def epoch(self, source: np.random.Generator) -> Iterator[Any]:
        """Yield the batches as RecBole's Interactions, in an order drawn from `source`."""
        from recbole.data.interaction import Interaction

        users, items = self._rows
        order = source.permutation(len(users))
        users, items = users[order], items[order]
        for start in range(0, len(users), self._size):
            part = slice(start, start + self._size)
            columns = self._columns(users[part], items[part], source)
            tensors = {field: torch.from_numpy(column).to(self._device) for field, column in columns.items()}
            yield Interaction(tensors)

    def _columns(
        self, users: IntArray, items: IntArray, source: np.random.Generator
    ) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        user, item, label = self._fields
        if self._kind == "users":
            return {user: users + 1}
        if self._kind == "pairs":  # in RecBole's order: the whole batch once per negative
            users, items = np.tile(users, self._negatives), np.tile(items, self._negatives)
            return {user: users + 1, item: items + 1, self._negative_field: self._sampler.draw(users, source) + 1}
        labels = np.ones(len(users), dtype=np.float32)
        if self._kind == "labelled":
            others = np.tile(users, self._negatives)
            drawn = self._sampler.draw(others, source)
            users, items = np.concatenate([users, others]), np.concatenate([items, drawn])
            labels = np.concatenate([labels, np.zeros(len(others), dtype=np.float32)])
        return {user: users + 1, item: items + 1, label: labels}
