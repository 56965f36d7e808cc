"""RecBole's `valid_metric` computed from our ranks: with one held-out item a user, its rank says everything.

Hit, Recall, Precision, MRR, MAP, NDCG at any cut-off, and GAUC. Ties are averaged over, where RecBole's evaluator takes
`torch.topk`'s order; without ties the two are equal. Nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.errors import ConfigError, did_you_mean
from fedvlr_plugin.evaluation.metrics import hit_rate, ndcg, reciprocal_rank
from fedvlr_plugin.evaluation.ranks import Ranks, candidates

AT_K = ("hit", "recall", "precision", "mrr", "map", "ndcg")
ALLOWED = "Hit@k, Recall@k, Precision@k, MRR@k, MAP@k, NDCG@k and GAUC"


@dataclass(frozen=True)
class ValidMetric:
    """One figure that picks a round, higher is better.

    Attributes:
        name: in lower case.
        k: the cut-off; None of GAUC.

    Example:
        >>> ValidMetric.parse("MRR@10")
        ValidMetric(name='mrr', k=10)
    """

    name: str
    k: int | None

    @classmethod
    def parse(cls, text: object) -> ValidMetric:
        """Read RecBole's spelling; raises `ConfigError` for what ranks do not give."""
        name, at, cut = str(text).strip().lower().partition("@")
        if name == "gauc" and not at:
            return cls(name, None)
        if name in AT_K and cut.isdecimal() and int(cut) >= 1:
            return cls(name, int(cut))
        if name in AT_K:
            raise ConfigError(
                f"valid_metric '{text}' needs a cut-off of at least 1; write {name.upper()}@10, for example"
            )
        raise ConfigError(
            f"valid_metric '{text}' cannot choose the round of FedVLR.{did_you_mean(name, (*AT_K, 'gauc'))} "
            f"Allowed: {ALLOWED}."
        )

    @property
    def key(self) -> str:
        """Its name among validation metrics, as RecBole writes it."""
        return self.name if self.k is None else f"{self.name}@{self.k}"

    def value(self, ranks: Ranks, interactions: Interactions) -> float:
        """The mean over users, in 0..1, of validation ranks."""
        if self.k is None:
            others = candidates(interactions, "valid") - 1
            counted = others > 0
            lost = (ranks.above[counted] + ranks.tied[counted] / 2.0) / others[counted]
            return float(np.mean(1.0 - lost)) if counted.any() else 0.0
        if self.name == "ndcg":
            return float(ndcg(ranks, self.k).mean())
        if self.name in ("mrr", "map"):
            return float(reciprocal_rank(ranks, self.k).mean())
        hits = float(hit_rate(ranks, self.k).mean())
        return hits / self.k if self.name == "precision" else hits
