"""What a search chose, as a file: `<results>/studies/<study>.json`, from which the cell's runs follow.

With these files a table can be rebuilt from the results folder alone, without the study's database and without the
data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedvlr_plugin.config import ParamValue, RunSpec
from fedvlr_plugin.data.reading.names import visible
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.profiles import spec_with
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.files import read_bytes, write_atomic
from fedvlr_plugin.search.study import Selection, StudySpec


class SelectedConfiguration(BaseModel):
    """A finished search: what was tried, what was chosen, and with how many seeds it is run.

    Attributes:
        study: its name in the storage.
        base: the run that trials changed.
        settings: the chosen changes.
        value: validation NDCG@50 in percent of the chosen point.
        tried, failed, pruned: numbers of trials.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1]
    study: str
    profile: str
    method: Literal["grid", "tpe"]
    base: RunSpec
    data_fingerprint: str
    point: dict[str, float]
    settings: dict[str, ParamValue | dict[str, float]]
    value: float
    tried: int
    failed: int
    pruned: int
    seeds: int

    def specs(self) -> list[RunSpec]:
        """The runs of the cell: the chosen point with each seed."""
        chosen = spec_with(self.base, self.settings)
        return [chosen.model_copy(update={"seed": seed}) for seed in range(self.seeds)]


def make_tuned(
    study: StudySpec, found: Selection, data_fingerprint: str, profile: str, seeds: int
) -> SelectedConfiguration:
    """The file's content for a finished study."""
    return SelectedConfiguration.model_validate(
        {
            "schema_version": 1,
            "study": found.study,
            "profile": profile,
            "method": study.method,
            "base": study.base,
            "data_fingerprint": data_fingerprint,
            "point": found.point,
            "settings": found.settings,
            "value": found.value,
            "tried": found.tried,
            "failed": found.failed,
            "pruned": found.pruned,
            "seeds": seeds,
        }
    )


def save_tuned(store: ResultsStore, tuned: SelectedConfiguration) -> None:
    """Write the selection in one step."""
    write_atomic(store.selection_path(tuned.study), (tuned.model_dump_json(indent=1) + "\n").encode())


def load_tuned(store: ResultsStore, study: str) -> SelectedConfiguration | None:
    """The selection of a study, None if it is not finished."""
    path = store.selection_path(study)
    return _read(path) if path.is_file() else None


def all_tuned(store: ResultsStore, profile: str, protocol: str) -> list[SelectedConfiguration]:
    """The stored selections of a profile under a protocol, in the order of their file names."""
    found = [_read(path) for path in visible(store.studies.glob("*.json"))]
    return [t for t in found if t.profile == profile and t.base.protocol.name == protocol]


def _read(path: Path) -> SelectedConfiguration:
    try:
        return SelectedConfiguration.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ResultsError(
            f"'{path}' is not a selection this version can read: {where}: {first['msg']}; "
            "delete it to have it made again from the study"
        ) from None
