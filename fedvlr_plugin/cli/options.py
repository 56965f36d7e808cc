"""What the user asked of a table or figure: one frozen model, where every default of the command line stands.

`arguments` fills it in from a command line, and imports it only when that makes sense.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fedvlr_plugin.config import Frozen
from fedvlr_plugin.experiment.noise_options import NoiseOptions


class Options(Frozen):
    """A request. None = the default of the profile or of the package.

    Attributes:
        datasets: names of data sets.
        rows: names of rows.
        profile: how much to spend.
        seeds: runs per cell, with the seeds 0 .. N-1.
        protocol: of the evaluation.
        data_root: folder of data sets.
        results: folder of the results store.
        device: where to compute.
        engine: how clients are computed; changes no number beyond rounding.
        memory_budget: bytes for private item vectors.
        keep: private results to store beside the ranks.
        overwrite: what happens to runs that are stored already.
        checkpoint_every: rounds between two checkpoints.
        dropout: share of the cohort that fails before it trains.
        stragglers: share of the rest that answers too late.
        control: `shuffled` runs every row that uses item features a second time, with the features shuffled.
        settings: over those of the profile, by name.
        dry_run: say what would be done, and stop.
        stored: run nothing, show what is stored.
        search: how parameters are chosen.
        trials: per cell of a tpe search.
        storage: URL of the database of searches.
        pruning: whether searches give up trials with a poor learning curve.
        noise: what noise to show, of Table 4.
    """

    datasets: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    profile: Literal["smoke", "quick", "paper"] = "quick"
    seeds: int | None = Field(default=None, ge=1)
    protocol: Literal["corrected", "as_released"] = "corrected"
    data_root: Path | None = None
    results: Path = Path("results")
    device: str = "cpu"
    engine: Literal["batched", "sequential"] = "batched"
    memory_budget: int | None = Field(default=None, ge=1)
    keep: tuple[Literal["router_weights"], ...] = ()
    overwrite: Literal["only-missing", "always", "never"] = "only-missing"
    checkpoint_every: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    stragglers: float = Field(default=0.0, ge=0.0, le=1.0)
    control: Literal["none", "shuffled"] = "none"
    settings: dict[str, object] = {}
    dry_run: bool = False
    stored: bool = False
    search: Literal["none", "grid", "tpe"] | None = None
    trials: int | None = Field(default=None, ge=1)
    storage: str | None = None
    pruning: bool = False
    noise: NoiseOptions = NoiseOptions()

    def given(self, *names: str) -> list[str]:
        """Return those of the fields called `names` whose value is not the default, as command-line options."""
        fields = type(self).model_fields
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != fields[name].default]
