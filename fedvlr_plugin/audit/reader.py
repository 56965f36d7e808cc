"""Reads sights with the probes, round after round, and scores what it read against the truth.

`Seen` is what one sight gave away, client by client; `Truth` is what clients keep to themselves, for the comparison
only. None of it leaves the audit but as means over clients. Imports `probes`, `recovery`, `federation`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fedvlr_plugin.audit.probes import BoolArray, FloatArray, auc, history_scores, hit_at
from fedvlr_plugin.audit.recovery import Recovered, cosine, recover
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.engines.batched import BatchedEngine
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.rng import Stream, generator

K = 10
RANDOM_ITEMS = 2


class Truth:
    """Heads and router weights of all clients after a round, as far as the row has what `recovery` looks for.

    Attributes:
        n_views: of the broadcast. heads: theta_u `[U, width]`, None where the head is no vector of the views' width.
        weights: w_u `[U, G]`, None without a router.
    """

    def __init__(self, federation: Federation, broadcast: dict[str, torch.Tensor]) -> None:
        self.heads: torch.Tensor | None = None
        self.weights: torch.Tensor | None = None
        self.n_views = self.width = 0
        engine = federation.engine
        if not isinstance(engine, BatchedEngine) or "views" not in broadcast:
            return
        self.n_views, self.width = broadcast["views"].shape[0], broadcast["views"].shape[2]
        private = engine.store.shape.split(engine.store.values["head"])
        if "theta" in private and private["theta"].shape[1] == self.width:
            self.heads = private["theta"][federation.problem.histories.slot_of]
        weights = engine.router_weights(broadcast)
        self.weights = None if weights is None else torch.from_numpy(weights)


class Seen:
    """Evidence of one sight by client, added up over rounds; guesses of the last round."""

    def __init__(self) -> None:
        self.scores: dict[int, FloatArray] = {}
        self.guesses: dict[int, Recovered] = {}

    def read(self, users: Iterable[int], rows: torch.Tensor) -> None:
        """Adds a round's rows, which say the same of all of `users`."""
        scores = history_scores(rows)
        for user in users:
            self.scores[user] = self.scores[user] + scores if user in self.scores else scores

    def guess(self, users: Iterable[int], rows: torch.Tensor, truth: Truth) -> None:
        """Guesses head and router from a round's rows."""
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

    def head_figures(self, truth: Truth) -> dict[str, dict[int, float]]:
        """By name and client: `head`, the cosine of guessed and true head, and `other head`, that of the next client."""
        out: dict[str, dict[int, float]] = {"head": {}, "other head": {}}
        users = sorted(self.guesses)
        if truth.heads is None:
            return out
        for user, other in zip(users, [*users[1:], *users[:1]], strict=True):
            out["head"][user] = cosine(self.guesses[user].head, truth.heads[user])
            out["other head"][user] = cosine(self.guesses[user].head, truth.heads[other])
        return out

    def router_pairs(self, truth: Truth) -> list[tuple[FloatArray, FloatArray]]:
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
