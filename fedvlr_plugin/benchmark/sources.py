"""Where the runners get data sets from: names to use by default, names checked, data loaded. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvlr_plugin.data.prepared import PreparedData


@dataclass(frozen=True)
class Sources:
    """Where data sets come from; tests put their own in place.

    Attributes:
        default: names to use when the user gives none. check: canonical name, raises for an unknown one.
        load: reads and prepares one.
    """

    default: Callable[[Path | None], list[str]]
    check: Callable[[str, Path | None], str]
    load: Callable[[str, Path | None], PreparedData]


def default_sources() -> Sources:
    """The catalogue of data sets."""
    from fedvlr_plugin.benchmark.datasets import check, default, load

    return Sources(default, check, load)
