"""Probes that read a client's history out of an uplink, and how good they are. Plain mathematics, no federation.

An uplink is read as item rows `[n_items, R]` (`federation.uploads`). For a linear head a step adds r (w_u ⊗ theta_u) to
the row of every item it trains on: r < 0 for an item of the history, r > 0 for a drawn negative. So the rows lie
along one direction, on two sides of zero. `history_scores` finds that direction v (of largest |rows v|) and scores an
item by -row . v. Which end of v is which, it tells from the count: a client touches more negatives than it has
history. It needs neither the client's head nor its router, and nothing of the history.

Rows that say nothing give chance. Imports nothing of ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

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
