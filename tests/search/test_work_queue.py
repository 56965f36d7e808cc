"""Places in the queue of a study: claimed once, given up when their workers keep dying."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna.trial import TrialState

from fedvlr_plugin.search.storage import open_storage
from fedvlr_plugin.search.work_queue import DUPLICATE, MAX_ATTEMPTS, SLOT, Queue, Slot

optuna.logging.set_verbosity(optuna.logging.ERROR)


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_slot_whose_workers_keep_dying_is_given_up(tmp_path: Path) -> None:
    queue = Queue(open_storage(url(tmp_path), 1, 1), "study", [Slot(0, {"x": 1.0})])
    for _ in range(MAX_ATTEMPTS):
        assert not queue.finished()
        while queue.claim() is None:  # each claim is dropped without a heartbeat, as by kill -9
            time.sleep(0.2)
    deadline = time.monotonic() + 20
    while not queue.finished() and time.monotonic() < deadline:
        queue.claim()
        time.sleep(0.2)
    assert queue.finished() and queue.outcomes()[0].state == TrialState.FAIL


def test_of_several_trials_for_a_slot_only_the_first_is_done(tmp_path: Path) -> None:
    queue = Queue(open_storage(url(tmp_path)), "study", [Slot(0, {"x": 1.0}), Slot(1, {"x": 2.0})])
    for number in (1, 0, 0):  # what two workers leave that filled the list at the same moment
        queue.study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={SLOT: number}))
    done = []
    while not queue.finished():
        claim = queue.claim()
        assert claim is not None
        with claim:
            done.append(claim.slot)
            claim.done(1.0)
    assert sorted(done) == [0, 1]
    assert [trial.state.name for trial in queue.study.trials] == ["COMPLETE"] * 2 + ["FAIL"] * 3
    assert [trial.user_attrs.get(DUPLICATE) for trial in queue.study.trials] == [None, None, 1, 0, 0]


def test_a_claimed_slot_is_not_claimed_again_through_another_trial(tmp_path: Path) -> None:
    queue = Queue(open_storage(url(tmp_path)), "study", [Slot(0, {"x": 1.0})])
    queue.study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={SLOT: 0}))
    first = queue.claim()
    assert first is not None and queue.claim() is None, "the second trial stands for a slot that is being worked on"
