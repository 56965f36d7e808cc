"""Searches and final runs of many cells, shared by all workers that are started with the same command.

A cell is done in two parts: its study is worked off and the selection written; then the chosen point is run with
each seed and stored, test split included, once. Cells come in order of priority. A worker that finds nothing to do
in a cell because others are at it goes on with the next and comes back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError, FedVLRError, ResultsError
from fedvlr_plugin.experiment.estimate import estimate_seconds
from fedvlr_plugin.experiment.execution import Failure, Runner, complete, run_and_store
from fedvlr_plugin.experiment.profiles import Profile, search_for, spec_for
from fedvlr_plugin.experiment.progress import Progress, describe, outcome_of
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.search.selection import SelectedConfiguration, load_tuned, make_tuned, save_tuned
from fedvlr_plugin.search.space import space_of
from fedvlr_plugin.search.storage import GRACE_S
from fedvlr_plugin.search.study import Study, StudySpec
from fedvlr_plugin.search.work_queue import ERROR, Queue, Slot

POLL_S = 1.0


@dataclass(frozen=True)
class Cell:
    """A row on a data set: how it is searched, with how many seeds the chosen point is run, how early it comes."""

    study: StudySpec
    seeds: int
    priority: int


def cells_for(
    profile: Profile,
    datasets: Sequence[str],
    rows: Sequence[str],
    protocol: str,
    overrides: Mapping[str, object],
    seeds: int | None = None,
    method: str | None = None,
    trials: int | None = None,
    pruning: bool = False,
) -> list[Cell]:
    """The cells of a profile that searches, most important first; floors have nothing to search and are left out.

    `seeds`, `method` and `trials` given by the user go before the profile's. Raises `ConfigError` for a bad one.
    """
    cells = []
    for dataset in datasets:
        for row in rows:
            base = spec_for(profile, dataset, row, 0, protocol, overrides)
            how: dict[str, object] = {"method": "grid", "trials": 8, "seeds": profile.seeds, "priority": 0}
            how |= search_for(profile, dataset, parse_row(base.row))
            chosen = method or how["method"]
            if chosen not in ("grid", "tpe"):
                raise ConfigError(f"unknown search method '{chosen}'; allowed: grid, tpe")
            budget = int(str(trials or how["trials"]))
            study = StudySpec(base, space_of(base.row), "grid" if chosen == "grid" else "tpe", budget, pruning)
            cells.append(Cell(study, seeds or int(str(how["seeds"])), int(str(how["priority"]))))
    return sorted(cells, key=lambda cell: cell.priority)


class Tuner:
    """Works cells off.

    Args:
        cells: in order.
        data: by data set.
        store, storage: where results and studies are.
        runner: `run`.
        execution: how runs are executed.
        profile: recorded with each run.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        data: Mapping[str, PreparedData],
        store: ResultsStore,
        storage: RDBStorage,
        runner: Runner,
        execution: ExecutionConfig | None,
        profile: str,
    ) -> None:
        self.cells, self.data, self.store, self.storage = tuple(cells), data, store, storage
        self._runner, self._execution, self._profile = runner, execution, profile
        self._studies: dict[str, Study] = {}

    def weights(self) -> list[float]:
        """Estimated seconds of every trial and final run that is not done yet."""
        history = self.store.records()
        found = []
        for cell in self.cells:
            base, data = cell.study.base, self.data[cell.study.base.dataset]
            seconds = estimate_seconds(base, data.interactions, history)
            tuned = self._tuned(cell)
            if tuned is None:
                open_slots = len(cell.study.slots()) - len(self._study(cell).queue.outcomes())
                found += [seconds] * (open_slots + cell.seeds)
            else:
                found += [seconds] * len(self._missing(tuned, data))
        return found

    def run(self, progress: Progress) -> list[Failure]:
        """Do all open work; return the cells and runs that failed.

        Raises:
            ResultsError: the study storage fails on the way (disk full, locked, damaged, deleted).
        """
        try:
            return self._run(progress)
        except optuna.exceptions.StorageInternalError as error:
            raise ResultsError(
                f"the study storage failed ({' '.join(str(error.__cause__ or error).split())}); make room or mend it. What is "
                "finished is stored, and the same command goes on from there"
            ) from None

    def _run(self, progress: Progress) -> list[Failure]:
        failures: list[Failure] = []
        progress.start(self.weights())
        try:
            pending = list(self.cells)
            while pending:
                before = len(pending)
                for cell in list(pending):
                    progress.cells_done(len(self.cells) - len(pending), len(self.cells))
                    if self._advance(cell, progress, failures):
                        pending.remove(cell)
                progress.cells_done(len(self.cells) - len(pending), len(self.cells))
                if pending and len(pending) == before:
                    progress.waiting(len(pending), self.storage.grace_period or GRACE_S)
                    time.sleep(POLL_S)
        finally:
            progress.stop()
        return failures

    def selections(self) -> list[SelectedConfiguration]:
        """The selections made so far, in the order of cells."""
        return [tuned for cell in self.cells if (tuned := self._tuned(cell)) is not None]

    def _advance(self, cell: Cell, progress: Progress, failures: list[Failure]) -> bool:
        """Do what can be done in a cell now; true when nothing is left in it."""
        tuned = self._tuned(cell)
        if tuned is None:
            study = self._study(cell)
            while self._trial(study, cell, progress):
                continue
            if not study.queue.finished():
                return False
            try:
                found = study.selection()
            except FedVLRError as error:
                failures.append(Failure(cell.study.base, str(error)))
                return True
            data = self.data[cell.study.base.dataset]
            tuned = make_tuned(cell.study, found, data.fingerprint, self._profile, cell.seeds)
            save_tuned(self.store, tuned)
        return self._final(tuned, progress, failures)

    def _trial(self, study: Study, cell: Cell, progress: Progress) -> bool:
        claim = study.queue.claim()
        if claim is None:
            return False
        base = cell.study.base
        label = f"{base.dataset} {base.row}, trial {claim.slot + 1} of {len(study.queue.slots)}"
        with claim:
            progress.run_started(label, base.training.rounds)
            outcome = study.attempt(claim, progress.round_done)
        progress.run_done(label, outcome)
        return True

    def _final(self, tuned: SelectedConfiguration, progress: Progress, failures: list[Failure]) -> bool:
        """Run the chosen point with every seed that is not stored whole; true when all are stored or have failed."""
        data = self.data[tuned.base.dataset]
        missing = self._missing(tuned, data)
        if not missing:
            return True
        queue = Queue(self.storage, f"{tuned.study} runs", [Slot(spec.seed, {}) for spec in tuned.specs()])
        while (claim := queue.claim()) is not None:
            with claim:
                spec = tuned.specs()[claim.slot]
                if complete(spec, self.store, data.fingerprint, self._execution):
                    claim.done(self.store.load(spec, data.fingerprint).valid["ndcg@50"])
                    continue
                failure = self._store_run(spec, data, progress)
                if isinstance(failure, Failure):
                    claim.failed(failure.message)
                else:
                    claim.done(failure)
        if not queue.finished():
            return False
        for spec in self._missing(tuned, data):
            trial = queue.outcomes()[spec.seed]
            if trial.state == TrialState.COMPLETE:
                done = self._store_run(spec, data, progress)  # done once, but its files are not in this store
                failures += [done] if isinstance(done, Failure) else []
            else:
                failures.append(Failure(spec, trial.user_attrs.get(ERROR, "its workers died")))
        return True

    def _store_run(self, spec: RunSpec, data: PreparedData, progress: Progress) -> float | Failure:
        """Do a final run; its validation NDCG@50, or the failure."""
        label = describe(spec)
        progress.run_started(label, spec.training.rounds)
        try:
            record = run_and_store(
                spec, self.store, data, self._runner, self._execution, self._profile, progress.round_done
            )
        except ResultsError:
            raise
        except FedVLRError as error:
            progress.run_done(label, f"FAILED: {error}")
            return Failure(spec, str(error))
        progress.run_done(label, outcome_of(record))
        return record.valid["ndcg@50"]

    def _missing(self, tuned: SelectedConfiguration, data: PreparedData) -> list[RunSpec]:
        return [s for s in tuned.specs() if not complete(s, self.store, data.fingerprint, self._execution)]

    def _tuned(self, cell: Cell) -> SelectedConfiguration | None:
        """The stored selection with the cell's number of seeds."""
        found = load_tuned(self.store, cell.study.name(self.data[cell.study.base.dataset].fingerprint))
        return None if found is None else found.model_copy(update={"seeds": cell.seeds})

    def _study(self, cell: Cell) -> Study:
        data = self.data[cell.study.base.dataset]
        name = cell.study.name(data.fingerprint)
        if name not in self._studies:
            self._studies[name] = Study(cell.study, data, self.storage, self._runner, self._execution)
        return self._studies[name]
