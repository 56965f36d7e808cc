"""Probes that read a client's history out of an uplink, and how good they are. Plain mathematics, no federation.

An uplink is read as item rows `[n_items, R]` (`federation.uploads`). For a linear head a step adds r (w_u ⊗ theta_u) to
the row of every item it trains on: r < 0 for an item of the history, r > 0 for a drawn negative. So the rows lie
along one direction, on two sides of zero. `history_scores` finds that direction v (of largest |rows v|) and scores an
item by -row . v. Which end of v is which, it tells from the count: a client touches more negatives than it has
history. It needs neither the client's head nor its router, and nothing of the history.

Rows that say nothing give chance.
Reads sights with the probes, round after round, and scores what it read against the truth.

`Evidence` is what one sight gave away, client by client; `GroundTruth` is what clients keep to themselves, for the comparison
only. None of it leaves the audit but as means over clients.

How much of a client's private head and router its uplink gives away (algorithm.md sections 2, 4 and 11).

An uplink row of an item outside the history is a multiple of w_u ⊗ theta_u: the gradient with respect to the views of
an item that only occurs as a negative, F_ji, is r w_uj theta_u, and the part through the router's pooling touches items
of the history alone. In one local step the multiple is exact; over A epochs the rows are sums over slightly different
heads. From such rows, as a matrix `[G, d]`,

    M = leading direction of the rows  =  (w_u / |w_u|) ⊗ (theta_u / |theta_u|)

the first singular pair gives both: the router's weights w_u wholly (positive, summing to one), and the head up to its
length. The probe chooses the rows by itself: those on the side of the many (`probes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from fedvlr_plugin.aggregation.broadcast import Broadcast
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.engines.batched import BatchedEngine
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.rng import Stream, generator

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def leading_direction(rows: torch.Tensor) -> torch.Tensor:
    """Unit vector v `[R]` with the largest |rows v|, for float64 rows `[n, R]`; its sign is arbitrary."""
    vectors: torch.Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return vectors[:, -1]


def oriented_direction(rows: torch.Tensor) -> torch.Tensor:
    """The leading direction, turned so that most rows that are not zero lie on its positive side (negatives)."""
    direction = leading_direction(rows)
    return -direction if int(torch.sign(rows @ direction).sum()) < 0 else direction


def history_scores(rows: torch.Tensor) -> FloatArray:
    """Evidence for each item to be in the history, `[n_items]`, scaled so that the largest is 1 in size.

    Rounds are put together by adding their scores up. Rows that are all zero give zeros.
    """
    rows = rows.double()
    scores = -(rows @ oriented_direction(rows))
    largest = float(scores.abs().max())
    found: FloatArray = (scores / largest if largest > 0 else scores).numpy()
    return found


def auc(scores: FloatArray, positive: BoolArray) -> float:
    """Probability that a positive is scored above a negative, ties counted half; NaN where either is missing."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = float(rankdata(scores)[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def hit_at(scores: FloatArray, positive: BoolArray, k: int) -> float:
    """Share of the k best scored items that are positive, of the most that could be: min(k, positives).

    Items of equal score count by their share of the places that are left, so that equal scores give chance.
    NaN where there are no positives.
    """
    most = min(k, int(positive.sum()))
    if most == 0:
        return float("nan")
    edge = np.sort(scores)[-min(k, len(scores))]
    above, level = scores > edge, scores == edge
    places = k - int(above.sum())
    hits = float((above & positive).sum()) + places * float((level & positive).sum()) / float(level.sum())
    return hits / most


K = 10
RANDOM_ITEMS = 2


class GroundTruth:
    """Heads and router weights of all clients after a round, as far as the row has what `recovery` looks for.

    Attributes:
        n_views: of the broadcast. heads: theta_u `[U, width]`, None where the head is no vector of the views' width.
        weights: w_u `[U, G]`, None without a router.
    """

    def __init__(self, federation: Federation, broadcast: Broadcast) -> None:
        self.heads: torch.Tensor | None = None
        self.weights: torch.Tensor | None = None
        self.n_views = self.width = 0
        engine = federation.engine
        if not isinstance(engine, BatchedEngine) or broadcast.views is None:
            return
        self.n_views, _, self.width = broadcast.views.shape
        private = engine.store.shape.split(engine.store.values["head"])
        if "theta" in private and private["theta"].shape[1] == self.width:
            self.heads = private["theta"][federation.problem.histories.slot_of]
        weights = engine.router_weights(broadcast)
        self.weights = None if weights is None else torch.from_numpy(weights)


class Evidence:
    """Evidence of one sight by client, added up over rounds; guesses of the last round."""

    def __init__(self) -> None:
        self.scores: dict[int, FloatArray] = {}
        self.guesses: dict[int, Recovered] = {}

    def read(self, users: Iterable[int], rows: torch.Tensor) -> None:
        """Add a round's rows, which say the same of all of `users`."""
        scores = history_scores(rows)
        for user in users:
            self.scores[user] = self.scores[user] + scores if user in self.scores else scores

    def guess(self, users: Iterable[int], rows: torch.Tensor, truth: GroundTruth) -> None:
        """Guess head and router from a round's rows."""
        if truth.heads is not None:
            found = recover(rows[:, : truth.n_views * truth.width], truth.n_views)
            self.guesses.update(dict.fromkeys(users, found))

    def history_figures(self, interactions: Interactions, seed: int) -> dict[str, dict[int, float]]:
        """By name and client: `auc`, `hit@10`, `hit@n` (and its `chance`), and the controls.

        The controls take for the truth, among the items that are not in the client's own history, the next client's
        history (`other`), and as many random items as the client has (`random`).
        """
        names = ("auc", "other", "random", "hit@10", "hit@n", "chance")
        out: dict[str, dict[int, float]] = {name: {} for name in names}
        users = sorted(self.scores)
        for user, other in zip(users, [*users[1:], *users[:1]], strict=True):
            scores, mine = self.scores[user], has(interactions, user)
            out["auc"][user] = auc(scores, mine)
            out["other"][user] = auc(scores[~mine], has(interactions, other)[~mine])
            source = generator(seed, Stream.AUDIT, RANDOM_ITEMS, user)
            drawn = torch.randperm(int((~mine).sum()), generator=source).numpy() < int(mine.sum())
            out["random"][user] = auc(scores[~mine], drawn)
            out["hit@10"][user] = hit_at(scores, mine, K)
            out["hit@n"][user] = hit_at(scores, mine, int(mine.sum()))
            out["chance"][user] = float(mine.mean())
        return out

    def head_figures(self, truth: GroundTruth) -> dict[str, dict[int, float]]:
        """By name and client: `head`, the cosine of guessed and true head, and `other head`, that of the next client."""
        out: dict[str, dict[int, float]] = {"head": {}, "other head": {}}
        users = sorted(self.guesses)
        if truth.heads is None:
            return out
        for user, other in zip(users, [*users[1:], *users[:1]], strict=True):
            out["head"][user] = cosine(self.guesses[user].head, truth.heads[user])
            out["other head"][user] = cosine(self.guesses[user].head, truth.heads[other])
        return out

    def router_pairs(self, truth: GroundTruth) -> list[tuple[FloatArray, FloatArray]]:
        """Guessed and true router weights `[G]` of each client; empty without a router of several views."""
        if truth.weights is None or truth.n_views < 2:
            return []
        return [
            (guess.router.numpy(), truth.weights[user].double().numpy()) for user, guess in sorted(self.guesses.items())
        ]


def has(interactions: Interactions, user: int) -> BoolArray:
    """Which items are in a user's training history, `[n_items]`."""
    found = torch.zeros(interactions.n_items, dtype=torch.bool)
    found[torch.from_numpy(interactions.history(user))] = True
    mine: BoolArray = found.numpy()
    return mine


class Recovered(NamedTuple):
    """Guesses: the head's direction `[width]`, of length one, and the router's weights `[G]`, positive, summing to 1."""

    head: torch.Tensor
    router: torch.Tensor


def recover(rows: torch.Tensor, n_views: int) -> Recovered:
    """Head and router from the view rows `[n_items, n_views * width]` of an uplink."""
    rows = rows.double()
    coefficients = rows @ oriented_direction(rows)
    outside = rows[coefficients > 0]
    if not len(outside):
        outside = rows
    direction = leading_direction(outside)
    if float((outside @ direction).sum()) < 0:
        direction = -direction
    left, _, right = torch.linalg.svd(direction.view(n_views, -1), full_matrices=False)
    weights, head = left[:, 0], right[0]
    if float(weights.sum()) < 0:
        weights, head = -weights, -head
    weights = weights.clamp(min=0.0)
    return Recovered(head, weights / weights.sum())


def cosine(one: torch.Tensor, two: torch.Tensor) -> float:
    """Cosine of the angle between two vectors; 0 where one of them is zero."""
    lengths = float(torch.linalg.vector_norm(one.double()) * torch.linalg.vector_norm(two.double()))
    return float(one.double() @ two.double()) / lengths if lengths > 0 else 0.0


def correlation(guesses: torch.Tensor, truths: torch.Tensor) -> float:
    """Pearson's r of guessed and true weights `[n, G]`, each view's mean taken away: what makes clients differ.

    NaN where the truths, or the guesses, do not differ.
    """
    centred = [values.double() - values.double().mean(0) for values in (guesses, truths)]
    one, two = (values.reshape(-1) for values in centred)
    lengths = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(two))
    return float(one @ two) / lengths if lengths > 1e-12 else float("nan")
