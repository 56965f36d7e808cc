"""A list of work that several processes or machines share through an Optuna study, each piece done once.

A study holds numbered slots. A slot is one WAITING trial to begin with; a worker claims it by setting it RUNNING,
which the database does for one of them only (see `storage`). Several trials may come to stand for one slot, when
two workers fill the list at the same moment or when a lost trial is offered again; the lowest-numbered one that has
not failed owns the slot, and the others are dropped when they are claimed. A worker that dies stops its heartbeat;
after the grace period the next worker that asks marks its trial as failed and offers the slot again.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import optuna
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedvlr_plugin.search.storage import HEARTBEAT_S

MAX_ATTEMPTS = 3
FILLING_S = 1.0
SLOT, DUPLICATE, ERROR, INTERRUPTED = "slot", "duplicate_of", "error", "interrupted"
Params = Mapping[str, float]


@dataclass(frozen=True)
class Slot:
    """A piece of work: its number and, where it is fixed, its parameters."""

    number: int
    params: Params


class Claim:
    """A claimed slot, alive while the `with` block lasts.

    Leaving the block without `done`, `pruned` or `failed` offers the slot again at once.
    """

    def __init__(self, queue: Queue, trial_id: int, number: int) -> None:
        self.slot = number
        self._queue, self._trial_id = queue, trial_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._over = False

    def trial(self) -> optuna.Trial:
        """The Optuna trial to take parameters from and to report to."""
        return optuna.Trial(self._queue.study, self._trial_id)

    def done(self, value: float) -> None:
        """The slot is finished with this value."""
        self._finish(TrialState.COMPLETE, value)

    def pruned(self, value: float) -> None:
        """The slot was given up early with this value so far."""
        self._finish(TrialState.PRUNED, value)

    def failed(self, message: str) -> None:
        """The slot cannot be done, for a reason that trying again does not mend."""
        self._queue.storage.set_trial_user_attr(self._trial_id, ERROR, message)
        self._finish(TrialState.FAIL, None)

    def _finish(self, state: TrialState, value: float | None) -> None:
        self._queue.storage.set_trial_state_values(self._trial_id, state, None if value is None else [value])
        self._over = True

    def _beat(self) -> None:
        while not self._stop.wait(self._queue.storage.heartbeat_interval or HEARTBEAT_S):
            self._queue.storage.record_heartbeat(self._trial_id)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._over:
            self._queue.storage.set_trial_user_attr(self._trial_id, INTERRUPTED, kind.__name__ if kind else "left")
            self._finish(TrialState.FAIL, None)


class Queue:
    """The slots of one study.

    Args:
        storage: from `open_storage`.
        name: of the study; must carry a hash of everything that defines it.
        slots: all pieces of work, in order of preference.
        sampler, pruner: as Optuna's; None = defaults.
    """

    def __init__(
        self,
        storage: RDBStorage,
        name: str,
        slots: Sequence[Slot],
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> None:
        self.storage, self.slots = storage, tuple(slots)
        pruner = pruner or optuna.pruners.NopPruner()
        try:
            self.study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", sampler=sampler, pruner=pruner
            )
        except optuna.exceptions.DuplicatedStudyError:
            self.study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
            self._wait_until_filled()
        else:
            self._offer_open_slots()

    def claim(self) -> Claim | None:
        """Claim the first slot that nobody works on; None if there is none just now (or ever)."""
        self._offer_open_slots()
        for trial in self._trials(TrialState.WAITING):
            # The heartbeat comes first: a worker that dies right after the claim leaves one that will go stale.
            self.storage.record_heartbeat(trial._trial_id)
            try:
                claimed = self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            if not claimed:
                continue
            owner = self._owner(trial.user_attrs[SLOT])
            if owner.number == trial.number:
                return Claim(self, trial._trial_id, trial.user_attrs[SLOT])
            self._drop(trial, owner.number)
        return None

    def outcomes(self) -> dict[int, FrozenTrial]:
        """Slot -> the trial that settled it: complete, pruned, or failed for good. Open slots are absent."""
        settled: dict[int, FrozenTrial] = {}
        crashed: dict[int, list[FrozenTrial]] = {}
        for trial in self._trials():
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs:
                settled.setdefault(trial.user_attrs[SLOT], trial)
            elif trial.state == TrialState.FAIL and not {DUPLICATE, INTERRUPTED} & trial.user_attrs.keys():
                crashed.setdefault(trial.user_attrs[SLOT], []).append(trial)
        given_up = {slot: trials[-1] for slot, trials in crashed.items() if len(trials) >= MAX_ATTEMPTS}
        return given_up | settled

    def finished(self) -> bool:
        """Whether every slot is settled; if so, superfluous trials that still wait are dropped."""
        settled = self.outcomes()
        if any(slot.number not in settled for slot in self.slots):
            return False
        for trial in self._trials(TrialState.WAITING):
            self._drop(trial, settled[trial.user_attrs[SLOT]].number)
        return True

    def running(self) -> int:
        """How many slots somebody works on."""
        return len(self._trials(TrialState.RUNNING))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials that stand for a slot, by number."""
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in trials if SLOT in trial.user_attrs]

    def _owner(self, number: int) -> FrozenTrial:
        """The lowest-numbered trial of a slot that has not failed (there is one when this is called)."""
        return next(t for t in self._trials() if t.user_attrs[SLOT] == number and t.state != TrialState.FAIL)

    def _drop(self, trial: FrozenTrial, owner: int) -> None:
        """Mark a trial as failed that stands for a slot which another one owns."""
        try:
            self.storage.set_trial_user_attr(trial._trial_id, DUPLICATE, owner)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # another worker was faster

    def _wait_until_filled(self) -> None:
        """Wait while the worker that made the study fills it, to spare superfluous trials."""
        most_slots, since = -1, time.monotonic()
        while (slots_found := len({t.user_attrs[SLOT] for t in self._trials()})) < len(self.slots):
            if slots_found > most_slots:
                most_slots, since = slots_found, time.monotonic()
            elif time.monotonic() - since > FILLING_S:
                return  # nobody is filling it; `claim` will
            time.sleep(0.05)

    def _offer_open_slots(self) -> None:
        """Mark trials whose worker is silent as failed, and offer every slot that has neither a trial nor an outcome."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        trials = self._trials()
        settled = self.outcomes()
        live = {t.user_attrs[SLOT] for t in trials if t.state != TrialState.FAIL}
        for slot in self.slots:
            if slot.number in live or slot.number in settled:
                continue
            lost = [t.params for t in trials if t.user_attrs[SLOT] == slot.number and t.params]
            fixed = dict(slot.params) or (lost[-1] if lost else {})
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    system_attrs={"fixed_params": fixed} if fixed else {},
                    user_attrs={SLOT: slot.number},
                )
            )
