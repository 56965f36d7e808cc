"""Choose the parameters of a closed form by validation NDCG@50: try every point of a grid; ties keep the earlier point.

The choice depends only on what `validate` returns; the caller passes a function of the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Ranks

OBJECTIVE = "ndcg@50"


@dataclass(frozen=True)
class Choice:
    """The best point of a grid.

    Attributes:
        point: the chosen values by name.
        value: their validation NDCG@50 in percent.
        tried: how many points were tried.
    """

    point: Mapping[str, float]
    value: float
    tried: int


def choose(grid: Mapping[str, Sequence[float]], validate: Callable[[Mapping[str, float]], Ranks]) -> Choice:
    """Try every point of a grid, in the order in which the last dimension changes fastest, and return the best.

    Args:
        grid: values to try by name; no list may be empty.
        validate: returns the ranks of the validation items for a point.

    Raises:
        ConfigError: a dimension has no values.
    """
    for name, values in grid.items():
        if not values:
            raise ConfigError(f"nothing to choose '{name}' from: its list of values is empty")
    best: tuple[float, dict[str, float]] | None = None
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    for point in points:
        value = summary(validate(point))[OBJECTIVE]
        if best is None or value > best[0]:
            best = value, point
    if best is None:  # product() of nothing is one empty point, so there is always one
        raise ConfigError("nothing to choose from")
    return Choice(best[1], best[0], len(points))
