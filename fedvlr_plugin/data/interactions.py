"""The interactions of a data set: histories of different lengths, split in time, with the tokens of users and items.

Engines, evaluation and floors read this frozen object. Ids start at 0 without gaps; the ids of the hosts (RecBole's
start at 1, 0 is padding) are translated where they enter. Source: `algorithm.md` section 6 (leave-one-out in time,
duplicates counted once).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.errors import DataError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Interactions:
    """Split interactions of `n_users` users with `n_items` items.

    Attributes:
        n_users: number of users; ids are 0..n_users - 1.
        n_items: number of items; ids are 0..n_items - 1.
        train_indptr: `[n_users + 1]`, user u's training items are `train_items[indptr[u]:indptr[u + 1]]`.
        train_items: `[n_train]`, distinct and ascending within a user.
        valid: `[n_users]`, the validation item of each user, -1 if there is none.
        test: `[n_users]`, the test item of each user, -1 if there is none.
        user_tokens: raw tokens, `[n_users]`.
        item_tokens: raw tokens, `[n_items]`.

    Raises:
        DataError: the sizes do not match, an id is out of range, or there are fewer than 1 user or 2 items.
    """

    n_users: int
    n_items: int
    train_indptr: IntArray
    train_items: IntArray
    valid: IntArray
    test: IntArray
    user_tokens: tuple[str, ...]
    item_tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.n_users < 1 or self.n_items < 2:
            raise DataError(f"a data set needs at least 1 user and 2 items, got {self.n_users} and {self.n_items}")
        if len(self.user_tokens) != self.n_users or len(self.item_tokens) != self.n_items:
            raise DataError("the number of tokens does not equal the number of users or items")
        if self.train_indptr.shape != (self.n_users + 1,) or int(self.train_indptr[-1]) != len(self.train_items):
            raise DataError("train_indptr does not describe train_items")
        for name, column in (("train", self.train_items), ("valid", self.valid), ("test", self.test)):
            low = 0 if name == "train" else -1
            if len(column) and (column.min() < low or column.max() >= self.n_items):
                raise DataError(f"an item id of the {name} part is outside 0..{self.n_items - 1}")

    @cached_property
    def train_sizes(self) -> IntArray:
        """`[n_users]`, number of distinct training positives of each user (n_u)."""
        return np.diff(self.train_indptr)

    @cached_property
    def train_users(self) -> IntArray:
        """`[n_train]`, the user of each training pair, parallel to `train_items`."""
        return np.repeat(np.arange(self.n_users, dtype=np.int64), self.train_sizes)

    @cached_property
    def train_counts(self) -> IntArray:
        """`[n_items]`, how many users have the item in training (popularity)."""
        return np.bincount(self.train_items, minlength=self.n_items).astype(np.int64)

    @cached_property
    def cold_items(self) -> BoolArray:
        """`[n_items]`, true for items that never occur in training."""
        cold: BoolArray = self.train_counts == 0
        return cold

    @property
    def n_interactions(self) -> int:
        """Number of distinct pairs over all three parts."""
        return len(self.train_items) + int((self.valid >= 0).sum()) + int((self.test >= 0).sum())

    def history(self, user: int) -> IntArray:
        """Return the training items of one user, ascending, `[n_u]`."""
        return self.train_items[self.train_indptr[user] : self.train_indptr[user + 1]]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of tokens and split; equal data gives the same value on every machine."""
        digest = hashlib.sha256(f"interactions/1 {self.n_users} {self.n_items}".encode())
        for tokens in (self.user_tokens, self.item_tokens):
            digest.update("\x1f".join(tokens).encode())
        for array in (self.train_indptr, self.train_items, self.valid, self.test):
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()

    @classmethod
    def from_labels(
        cls,
        users: IntArray,
        items: IntArray,
        labels: IntArray,
        user_tokens: tuple[str, ...],
        item_tokens: tuple[str, ...],
    ) -> Interactions:
        """Create the object from labelled interactions; a pair that occurs twice in training is kept once.

        Args:
            users: ids `[n]`.
            items: ids `[n]`.
            labels: `[n]`, 0 train, 1 validation, 2 test.
            user_tokens: raw tokens, `[n_users]`.
            item_tokens: raw tokens, `[n_items]`.

        Raises:
            DataError: a label is unknown, or a user has two validation or two test items (the protocol is
                leave-one-out).
        """
        n_users, n_items = len(user_tokens), len(item_tokens)
        if len(labels) and not np.isin(labels, (TRAIN, VALID, TEST)).all():
            raise DataError(
                f"split labels must be 0 (train), 1 (valid) or 2 (test), got {sorted(set(labels.tolist()))[:6]}"
            )
        held: dict[int, IntArray] = {}
        for label, name in ((VALID, "validation"), (TEST, "test")):
            chosen = labels == label
            counts = np.bincount(users[chosen], minlength=n_users)
            if counts.max(initial=0) > 1:
                raise DataError(
                    f"user '{user_tokens[int(counts.argmax())]}' has {counts.max()} {name} items; leave-one-out allows "
                    "one. Label one row per user and part, or leave the labels out to split by time."
                )
            held[label] = np.full(n_users, -1, dtype=np.int64)
            held[label][users[chosen]] = items[chosen]
        pairs = np.unique(users[labels == TRAIN].astype(np.int64) * n_items + items[labels == TRAIN])
        indptr = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(pairs // n_items, minlength=n_users), out=indptr[1:])
        return cls(
            n_users, n_items, indptr, pairs % n_items, held[VALID], held[TEST], tuple(user_tokens), tuple(item_tokens)
        )  # fmt: skip


def leave_one_out(users: IntArray, timestamps: IntArray | npt.NDArray[np.float64]) -> IntArray:
    """Split interactions by leave-one-out in time: each user's last one is test, the second last validation.

    Ties in time keep the given order. A user's only interaction is for training; of two, the last one is test and there
    is no validation item.

    Args:
        users: ids `[n]`.
        timestamps: `[n]`, in any unit.

    Returns:
        Labels `[n]`, 0 train, 1 validation, 2 test.
    """
    labels = np.zeros(len(users), dtype=np.int64)
    if not len(users):
        return labels
    order = np.lexsort((np.arange(len(users)), timestamps, users))
    sorted_users = users[order]
    last = np.r_[sorted_users[1:] != sorted_users[:-1], True]
    ends = np.flatnonzero(last)
    starts = np.r_[0, ends[:-1] + 1]
    sizes = ends - starts + 1
    labels[order[ends[sizes >= 2]]] = TEST
    labels[order[ends[sizes >= 3] - 1]] = VALID
    return labels
