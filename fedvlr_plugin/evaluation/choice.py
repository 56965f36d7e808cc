"""Choose the numbers of a closed form by validation NDCG@50: a grid, every point tried, ties to the earlier point.

The chooser sees what `validate` returns and nothing else; whoever calls it hands it a function of the validation
split.
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
        point: the chosen numbers by name.
        value: their validation NDCG@50 in percent.
        tried: how many points were tried.
    """

    point: Mapping[str, float]
    value: float
    tried: int


def choose(grid: Mapping[str, Sequence[float]], validate: Callable[[Mapping[str, float]], Ranks]) -> Choice:
    """Try every point of a grid, the last dimension running fastest, and keep the best.

    Args:
        grid: values by name, each list not empty.
        validate: ranks of the validation items under a point.

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
