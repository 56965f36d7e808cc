"""Pictures of an output: drawn where matplotlib is installed, stamped where features are of random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import ConfigError, MissingExtraError
from fedvlr_plugin.reporting.captions import random_lines
from fedvlr_plugin.reporting.output import FinishedRuns
from fedvlr_plugin.reporting.plots import save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

STAMP_COLOR = "#b5543c"


def stamped(finished: FinishedRuns, picture: Picture) -> Picture:
    """Return the picture with a line above it that names features of random weights; a picture has no notes."""
    lines = random_lines(finished.records())
    if lines:
        names = ", ".join(line.removeprefix("Features of ").partition(":")[0] for line in lines)
        text = f"RANDOM WEIGHTS, not a trained encoder, made features of {names}"
        picture.suptitle(text, color=STAMP_COLOR, fontsize=9)
    return picture


def draw(finished: FinishedRuns, make_picture: Callable[[], Picture], stem: Path) -> list[Path]:
    """Draw a picture and write it as PNG and SVG; return the paths.

    Without matplotlib (the extra [report]) a line says so and nothing is written.
    """
    try:
        return save_picture(make_picture(), stem)
    except MissingExtraError as error:
        finished.say(f"No picture: {error}")
        return []


def refuse_other_rows(rows: Sequence[str], allowed: Sequence[str], requirement: str) -> None:
    """Raise `ConfigError` for the first row that is not allowed; `requirement` ends `only rows that ...`."""
    for row in rows:
        if row not in allowed:
            raise ConfigError(f"row '{row}' cannot be drawn here: only rows that {requirement}")
