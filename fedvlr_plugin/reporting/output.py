"""What a table or figure is to the programs: the rows it takes, the runs it needs, and how it is drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import MissingExtraError
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.captions import random_lines, warned
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.plots import save_picture
from fedvlr_plugin.reporting.results_table import Table, left_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class FinishedRuns:
    """Finished runs and where to show them.

    Attributes:
        fingerprints, modalities: of the data the runs were made on, by data set.
        suffix: the profile and the protocol, for file names.
    """

    specs: Sequence[RunSpec]
    rows: Sequence[str]
    datasets: Sequence[str]
    fingerprints: Mapping[str, str]
    modalities: Mapping[str, Sequence[str]]
    store: ResultsStore
    profile: str
    suffix: str
    console: Console
    say: Callable[[str], None]


@dataclass(frozen=True)
class Output:
    """See the module. `check` raises `ConfigError` for rows it cannot use, before any work."""

    rows: Callable[[], list[str]]
    check: Callable[[Sequence[str]], None]
    more: Callable[[Sequence[RunSpec], Mapping[str, PreparedData]], list[RunSpec]]
    finish: Callable[[FinishedRuns], None]
    keep: tuple[str, ...] = ()  # private results that this product is made of
    datasets: tuple[str, ...] | None = None  # by default; None = all that are found
    references: bool = False  # whether floors and yardsticks are there whatever rows are asked for
    controls: bool = False  # whether shuffled controls can be shown


def _noted(done: FinishedRuns, table: Table, grid: Grid) -> Grid:
    """The grid of a table, below it what else a reader must know: random features, runs that were left out."""
    grid = warned(grid, records_of(done))
    return replace(grid, notes=(*grid.notes, *left_out(table.other_versions)))


def records_of(done: FinishedRuns) -> list[RunRecord]:
    """The stored records of the runs."""
    return done.store.records({spec.spec_hash for spec in done.specs})


def stamped(done: FinishedRuns, picture: Picture) -> Picture:
    """A picture has no notes, so features of random weights are named above it."""
    lines = random_lines(records_of(done))
    if lines:
        names = ", ".join(line.removeprefix("Features of ").partition(":")[0] for line in lines)
        picture.suptitle(
            f"RANDOM WEIGHTS, not a trained encoder, made features of {names}", color="#b5543c", fontsize=9
        )
    return picture


def draw(done: FinishedRuns, picture: Callable[[], Picture], stem: Path) -> list[Path]:
    """Draws a picture and writes it as PNG and SVG; without matplotlib says so and returns nothing."""
    try:
        return save_picture(picture(), stem)
    except MissingExtraError as error:
        done.say(f"No picture: {error}")
        return []
