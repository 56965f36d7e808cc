"""Track the best round of a run, and decide when to stop training.

The best round is the one with the highest validation score, compared unrounded and strictly, so that ties keep the
first (algorithm.md section 6). Every training loop of the package selects by this rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")


@dataclass
class BestRound(Generic[State]):
    """Scores, patience, and a copy of the parameters of the best round.

    Attributes:
        patience: validations without a gain after which training stops; None never stops it.
        number: the best round, counted from 1; 0 before any round was accepted.
        score: its validation score, higher is better; None before any round was accepted.
        waited: validations since the best round.
        state: a copy of the best round's parameters, set by the training loop; None before any.

    Example:
        >>> best = BestRound(patience=2)
        >>> for number, score in enumerate([10.0, 12.0, 12.0, 11.0], start=1):
        ...     if best.offer(number, score):
        ...         best.state = f"parameters of round {number}"
        >>> best.number, best.score, best.waited, best.stop
        (2, 12.0, 2, True)
    """

    patience: int | None = None
    number: int = 0
    score: float | None = None
    waited: int = 0
    state: State | None = None

    def offer(self, number: int, score: float) -> bool:
        """Take in the validation score of a round.

        Args:
            number: the round, counted from 1.
            score: its validation score; one that is not a number is never the best.

        Returns:
            Whether the round is the best so far; the caller then puts a copy of its parameters into `state`.
        """
        if math.isnan(score) or (self.score is not None and score <= self.score):
            self.waited += 1
            return False
        self.number, self.score, self.waited = number, score, 0
        return True

    def offer_nothing(self) -> None:
        """Count a validation that gave no score."""
        self.waited += 1

    @property
    def stop(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.waited >= self.patience
