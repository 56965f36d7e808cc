"""From specifications to stored runs: what is missing is computed, each run stored as soon as it is finished.

Every run goes through one function (`experiment.run.run` unless a test passes another).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import FedVLRError, ResultsError, unknown_name
from fedvlr_plugin.experiment.estimate import estimate_seconds
from fedvlr_plugin.experiment.progress import Progress, describe, outcome_of
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.result import OnRound, RunResult
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.store import ResultsStore

OVERWRITE = ("only-missing", "always", "never")


class Runner(Protocol):
    """The form of `experiment.run.run`."""

    def __call__(
        self,
        spec: RunSpec,
        execution: ExecutionConfig | None = None,
        *,
        data: PreparedData,
        on_round: OnRound | None = None,
        outputs: tuple[str, ...] = (),
        checkpoint: Path | None = None,
    ) -> RunResult: ...


@dataclass(frozen=True)
class Plan:
    """What will be done: `todo` in order with estimated `seconds`, and how many runs are stored already."""

    todo: tuple[RunSpec, ...]
    seconds: tuple[float, ...]
    stored: int


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error of ours; the others went on."""

    spec: RunSpec
    message: str


def make_plan(
    specs: Sequence[RunSpec],
    store: ResultsStore,
    data: Mapping[str, PreparedData],
    overwrite: str = "only-missing",
    execution: ExecutionConfig | None = None,
) -> Plan:
    """Decides which runs to do.

    Args:
        overwrite: `only-missing` computes the runs that are not stored; `always` computes all and replaces stored
            ones; `never` refuses, with a `ResultsError`, if any of the runs is stored already.
        execution: a stored run without a private result that its `keep` names counts as missing.
    """
    if overwrite not in OVERWRITE:
        raise unknown_name("overwrite policy", overwrite, OVERWRITE)
    specs = tuple({spec.spec_hash: spec for spec in specs}.values())
    stored = {spec.spec_hash for spec in specs if complete(spec, store, data[spec.dataset].fingerprint, execution)}
    if overwrite == "never" and stored:
        raise ResultsError(
            f"{len(stored)} of the {len(specs)} runs are stored already in '{store.root}', which --overwrite never "
            "refuses; choose another --results DIR, or --overwrite only-missing to keep them and compute the rest"
        )
    there = set() if overwrite == "always" else stored
    todo = tuple(spec for spec in specs if spec.spec_hash not in there)
    names = {spec.dataset for spec in todo}
    history = [record for record in store.records() if record.dataset in names] if todo else []
    seconds = tuple(estimate_seconds(spec, data[spec.dataset].interactions, history) for spec in todo)
    return Plan(todo, seconds, len(stored))


def execute(
    plan: Plan,
    store: ResultsStore,
    data: Mapping[str, PreparedData],
    progress: Progress,
    runner: Runner,
    execution: ExecutionConfig | None = None,
    profile: str | None = None,
) -> list[Failure]:
    """Do the runs of a plan one after the other and store each; return those that failed.

    A run that fails with an error of ours (it diverged, it needs features that are not there) does not stop the
    others; an interrupt or a defect does, and what is finished stays stored.
    """
    failures = []
    remove_finished_checkpoints(store)
    progress.start(list(plan.seconds))
    try:
        for spec in plan.todo:
            label = describe(spec)
            progress.run_started(label, spec.training.rounds)
            try:
                record = run_and_store(spec, store, data[spec.dataset], runner, execution, profile, progress.round_done)
            except ResultsError:
                raise
            except FedVLRError as error:
                failures.append(Failure(spec, str(error)))
                progress.run_done(label, f"FAILED: {error}")
            else:
                progress.run_done(label, outcome_of(record))
    finally:
        progress.stop()
    return failures


def remove_finished_checkpoints(store: ResultsStore) -> None:
    """Remove checkpoints of runs that are stored: a run killed between the two steps leaves one, with private state."""
    for path in store.checkpoints.glob("*.safetensors"):
        if any(store.runs.glob(f"*--{path.stem}.json")):
            path.unlink(missing_ok=True)


def run_and_store(
    spec: RunSpec,
    store: ResultsStore,
    data: PreparedData,
    runner: Runner,
    execution: ExecutionConfig | None,
    profile: str | None,
    on_round: OnRound | None = None,
) -> RunRecord:
    """Do one run and store it; a checkpoint, where one was asked for, is kept until then."""
    outputs = _outputs(spec, execution)
    if execution is None or execution.checkpoint_every is None or parse_row(spec.row).kind != "federated":
        return store.append(runner(spec, execution, data=data, on_round=on_round, outputs=outputs), data, profile)
    path = store.checkpoint_path(spec, data.fingerprint)
    result = runner(spec, execution, data=data, on_round=on_round, outputs=outputs, checkpoint=path)
    record = store.append(result, data, profile)
    path.unlink(missing_ok=True)
    return record


def _outputs(spec: RunSpec, execution: ExecutionConfig | None) -> tuple[str, ...]:
    """Private results that were asked for by name and that the row has (router weights: rows with a router)."""
    routed = parse_row(spec.row).fusion == "blfm"
    return () if execution is None or not routed else execution.keep


def complete(spec: RunSpec, store: ResultsStore, fingerprint: str, execution: ExecutionConfig | None) -> bool:
    """Whether a run is stored with everything that was asked for."""
    if not store.has(spec, fingerprint):
        return False
    return not _outputs(spec, execution) or store.load(spec, fingerprint).outputs is not None
