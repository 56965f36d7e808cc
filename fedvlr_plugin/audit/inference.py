"""Infer a client's history, head direction and router weights from its uplink, and score the result.

An uplink is read as item vectors `[n_items, R]` (`aggregation.uploads`). Three quantities are inferred:

History. With a linear head, one step adds r (w_u ⊗ theta_u) to the vector of every item it trains on, with r < 0 for
an item of the history and r > 0 for a drawn negative. All vectors then lie on one line through zero. `history_scores`
computes its direction v, which maximises |X v| for the uplink X, and scores an item x by -x . v. The sign of v follows
from the counts: a client trains on more negatives than it has items in its history. The inference uses neither the
client's head nor its router, and an uplink of zeros gives the AUC of chance.

Head and router (algorithm.md sections 2, 4 and 11). The vector of an item outside the history is a multiple of
w_u ⊗ theta_u: the gradient with respect to the views of an item that occurs only as a negative is
F_ji = r w_uj theta_u, and the part through the router's pooling changes items of the history alone. Read as a matrix
`[G, d]`, with G views of width d,

    M = leading direction of these vectors  =  (w_u / |w_u|) ⊗ (theta_u / |theta_u|)

so its first singular pair gives the router's weights w_u (positive, sum 1) and the head up to its length. This is exact
after one local step; over several epochs the vectors are sums over slightly different heads. The items are chosen
without knowledge of the history: those on the positive side of v.

`Evidence` adds these results up over the rounds; `GroundTruth` holds the true values and is used for scoring only.
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
    """Compute the unit vector v `[R]` that maximises |rows v|; its sign is arbitrary.

    Args:
        rows: `[n, R]`, float64.
    """
    vectors: torch.Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return vectors[:, -1]


def oriented_direction(rows: torch.Tensor) -> torch.Tensor:
    """Compute the leading direction `[R]`, with the sign that puts most non-zero vectors on its positive side.

    Args:
        rows: `[n, R]`, float64. The positive side is that of the drawn negatives.
    """
    direction = leading_direction(rows)
    return -direction if int(torch.sign(rows @ direction).sum()) < 0 else direction


def history_scores(rows: torch.Tensor) -> FloatArray:
    """Score every item by how likely it is to be in the client's history.

    Args:
        rows: item vectors of one uplink, `[n_items, R]`.

    Returns:
        `[n_items]`, scaled so that the largest absolute score is 1; all zero for an uplink of zeros. Scores of several
        rounds are combined by adding them.
    """
    rows = rows.double()
    scores = -(rows @ oriented_direction(rows))
    largest = float(scores.abs().max())
    scaled: FloatArray = (scores / largest if largest > 0 else scores).numpy()
    return scaled


def auc(scores: FloatArray, positive: BoolArray) -> float:
    """Compute the probability that a positive is scored above a negative, ties counted half.

    Args:
        scores: `[n]`.
        positive: `[n]`, true for positives.

    Returns:
        The AUC in 0..1; NaN if there are no positives or no negatives.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = float(rankdata(scores)[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def hit_at(scores: FloatArray, positive: BoolArray, k: int) -> float:
    """Count the positives among the k highest scores, divided by the largest possible count, min(k, positives).

    Args:
        scores: `[n]`. Items tied at the k-th place share the remaining places equally, so that equal scores give the
            value of chance.
        positive: `[n]`, true for positives.
        k: the cut-off, at least 1.

    Returns:
        The share in 0..1; NaN if there are no positives.
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
    """True heads and router weights of all clients after a round, for comparison with what `recover` returns.

    Args:
        federation: the federation after the round.
        broadcast: what its server sent in the round.

    Attributes:
        n_views: G, the number of views in the broadcast; 0 without views.
        width: width of a view; 0 without views.
        heads: theta_u `[U, width]`; None if the head is not a vector of that width.
        weights: w_u `[U, G]`; None without a router.
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
    """Results of the inference by client, for one kind of observation.

    Attributes:
        scores: history scores `[n_items]` by client, added up over rounds.
        guesses: inferred head and router weights by client, from the last round.
    """

    def __init__(self) -> None:
        self.scores: dict[int, FloatArray] = {}
        self.guesses: dict[int, Recovered] = {}

    def read(self, users: Iterable[int], rows: torch.Tensor) -> None:
        """Add the history scores of one round.

        Args:
            users: clients that the observation is about; all get the same scores.
            rows: item vectors `[n_items, R]`.
        """
        scores = history_scores(rows)
        for user in users:
            self.scores[user] = self.scores[user] + scores if user in self.scores else scores

    def guess(self, users: Iterable[int], rows: torch.Tensor, truth: GroundTruth) -> None:
        """Infer head and router weights from one round.

        Args:
            users: clients that the observation is about; all get the same result.
            rows: item vectors `[n_items, R]`.
            truth: gives the number and width of the views; without true heads nothing is inferred.
        """
        if truth.heads is not None:
            recovered = recover(rows[:, : truth.n_views * truth.width], truth.n_views)
            self.guesses.update(dict.fromkeys(users, recovered))

    def history_figures(self, interactions: Interactions, seed: int) -> dict[str, dict[int, float]]:
        """Score the inferred histories against the true ones.

        Args:
            interactions: the true histories.
            seed: of the run; the random control is drawn from it.

        Returns:
            Figures in 0..1 by name and client: `auc`; `hit@10`; `hit@n`, with n the length of the history; `chance`,
            the expected `hit@n` of random scores; and two controls, AUCs over the items outside the client's own
            history, whose positives are the next client's history (`other`) or as many random items as the client has
            (`random`).
        """
        names = ("auc", "other", "random", "hit@10", "hit@n", "chance")
        out: dict[str, dict[int, float]] = {name: {} for name in names}
        users = sorted(self.scores)
        for user, other in zip(users, [*users[1:], *users[:1]], strict=True):
            scores, in_history = self.scores[user], has(interactions, user)
            outside, n_history = ~in_history, int(in_history.sum())
            out["auc"][user] = auc(scores, in_history)
            out["other"][user] = auc(scores[outside], has(interactions, other)[outside])
            source = generator(seed, Stream.AUDIT, RANDOM_ITEMS, user)
            drawn = torch.randperm(int(outside.sum()), generator=source).numpy() < n_history
            out["random"][user] = auc(scores[outside], drawn)
            out["hit@10"][user] = hit_at(scores, in_history, K)
            out["hit@n"][user] = hit_at(scores, in_history, n_history)
            out["chance"][user] = float(in_history.mean())
        return out

    def head_figures(self, truth: GroundTruth) -> dict[str, dict[int, float]]:
        """Compare the inferred heads with the true ones.

        Args:
            truth: the true heads.

        Returns:
            Cosines by name and client: `head`, with the client's own head; `other head`, with the next client's head
            as a control. Both are empty without true heads.
        """
        out: dict[str, dict[int, float]] = {"head": {}, "other head": {}}
        users = sorted(self.guesses)
        if truth.heads is None:
            return out
        for user, other in zip(users, [*users[1:], *users[:1]], strict=True):
            out["head"][user] = cosine(self.guesses[user].head, truth.heads[user])
            out["other head"][user] = cosine(self.guesses[user].head, truth.heads[other])
        return out

    def router_pairs(self, truth: GroundTruth) -> list[tuple[FloatArray, FloatArray]]:
        """Return inferred and true router weights `[G]` of each client; empty without a router over several views.

        Args:
            truth: the true router weights.
        """
        if truth.weights is None or truth.n_views < 2:
            return []
        return [
            (guess.router.numpy(), truth.weights[user].double().numpy()) for user, guess in sorted(self.guesses.items())
        ]


def has(interactions: Interactions, user: int) -> BoolArray:
    """Mark the items of a user's training history.

    Args:
        interactions: the data set.
        user: in 0..n_users - 1.

    Returns:
        `[n_items]`, true for items of the history.
    """
    in_history: BoolArray = np.zeros(interactions.n_items, dtype=np.bool_)
    in_history[interactions.history(user)] = True
    return in_history


class Recovered(NamedTuple):
    """What is inferred of a client's private parameters.

    Attributes:
        head: direction of the head `[width]`, a unit vector.
        router: router weights `[G]`, at least 0, sum 1.
    """

    head: torch.Tensor
    router: torch.Tensor


def recover(rows: torch.Tensor, n_views: int) -> Recovered:
    """Infer head and router weights from an uplink; the module docstring gives the equation.

    Args:
        rows: gradients of the views, `[n_items, n_views * width]`.
        n_views: G, at least 1.
    """
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
    """Compute the cosine of the angle between two vectors `[n]`; 0 if one of them is zero."""
    lengths = float(torch.linalg.vector_norm(one.double()) * torch.linalg.vector_norm(two.double()))
    return float(one.double() @ two.double()) / lengths if lengths > 0 else 0.0


def correlation(guesses: torch.Tensor, truths: torch.Tensor) -> float:
    """Compute Pearson's correlation of inferred and true weights after each view's mean over clients is subtracted.

    Args:
        guesses: inferred weights `[n, G]`.
        truths: true weights `[n, G]`.

    Returns:
        The correlation in -1..1; NaN if all clients have the same true weights, or the same inferred ones.
    """
    centred = [values.double() - values.double().mean(0) for values in (guesses, truths)]
    one, two = (values.reshape(-1) for values in centred)
    lengths = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(two))
    return float(one @ two) / lengths if lengths > 1e-12 else float("nan")
