"""Studies: shared by processes, surviving kill -9, blind to the test split, named by what defines them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from fedvlr_plugin.config import RunSpec, TrainingConfig
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.search.space import space_of
from fedvlr_plugin.search.storage import open_storage
from fedvlr_plugin.search.study import Study, StudySpec, blind

optuna.logging.set_verbosity(optuna.logging.ERROR)

BASE = RunSpec(dataset="tiny", row="FedAvg", training=TrainingConfig(rounds=3))
SERVER = os.environ.get("FEDVLR_TEST_STORAGE", "")
WORKER = Path(__file__).parent / "study_worker.py"


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def begin(tmp_path: Path, method: str, pause: float, server: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), server or url(tmp_path), str(tmp_path / "log"), method, str(pause)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def log(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def states(tmp_path: Path, server: str = "") -> dict[str, int]:
    (summary_,) = optuna.get_all_study_summaries(server or url(tmp_path))
    trials = optuna.load_study(study_name=summary_.study_name, storage=server or url(tmp_path)).trials
    return {state.name: sum(t.state == state for t in trials) for state in TrialState}


@pytest.mark.parametrize(("method", "points"), [("grid", 16), ("tpe", 12)])
def test_two_processes_share_a_study_and_do_no_point_twice(tmp_path: Path, method: str, points: int) -> None:
    workers = [begin(tmp_path, method, 0.05) for _ in range(2)]
    answers = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], answers
    assert answers[0][0] == answers[1][0] and answers[0][0].strip().endswith(f" {points}")
    begun = log(tmp_path)
    assert len(begun) == points == len({tuple(point) for _, *point in begun})
    assert len({pid for pid, *_ in begun}) == 2, "both workers must have worked"
    found = states(tmp_path)
    assert found["COMPLETE"] == points and found["RUNNING"] == found["WAITING"] == 0


@pytest.mark.skipif(not SERVER, reason="FEDVLR_TEST_STORAGE does not name an empty database on a server")
def test_processes_share_a_study_on_a_server_and_survive_a_kill(tmp_path: Path) -> None:
    try:
        first, second = (begin(tmp_path, "grid", 0.3, SERVER) for _ in range(2))
        while len(log(tmp_path)) < 4:
            assert first.poll() is second.poll() is None, first.communicate()
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        out, err = second.communicate(timeout=120)
        assert second.returncode == 0 and out.strip().endswith(" 16"), err
        found = states(tmp_path, SERVER)
        assert found["COMPLETE"] == 16 and found["RUNNING"] == found["WAITING"] == 0 and found["FAIL"] == 1
        begun = log(tmp_path)
        assert len({pid for pid, *_ in begun}) == 2 and len(begun) == 17
        assert len({tuple(point) for _, *point in begun}) == 16, "only the lost point is done twice"
    finally:
        for study in optuna.get_all_study_names(SERVER):
            optuna.delete_study(study_name=study, storage=SERVER)


def test_killed_at_any_moment_the_lost_trial_is_retried_and_no_ghost_remains(tmp_path: Path) -> None:
    worker = begin(tmp_path, "grid", 0.3)
    while len(log(tmp_path)) < 3:
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    before = states(tmp_path)
    assert before["COMPLETE"] >= 2 and before["RUNNING"] == 1
    again = begin(tmp_path, "grid", 0.0)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    after = states(tmp_path)
    assert after["COMPLETE"] == 16 and after["RUNNING"] == 0 and after["WAITING"] == 0
    assert len(log(tmp_path)) == 17, "finished trials stay; only the lost one is done again"


def make(tmp_path, data, runner, method="grid", trials=5, row="FedAvg", pruning=False) -> Study:
    base = BASE.model_copy(update={"row": row})
    return Study(StudySpec(base, space_of(row), method, trials, pruning), data, open_storage(url(tmp_path)), runner)


def test_the_search_never_sees_a_test_item(tmp_path: Path, tiny: PreparedData, fake) -> None:
    seen = []

    def spy(spec, execution=None, *, data, on_round=None, outputs=()):
        seen.append(data.interactions)
        return fake(spec, execution, data=data, on_round=on_round, outputs=outputs)

    assert not np.array_equal(tiny.interactions.test, tiny.interactions.valid)
    study = make(tmp_path, tiny, spy, "tpe")
    study.work()
    assert len(seen) == 5
    for interactions in seen:
        np.testing.assert_array_equal(interactions.test, tiny.interactions.valid)
    hidden = blind(tiny)
    assert hidden.fingerprint != tiny.fingerprint, "a blind run can never be mistaken for a real one in the store"
    stored = [key for trial in study.trials() for key in (*trial.user_attrs, *trial.system_attrs)]
    assert stored and not any("test" in key for key in stored)


def test_the_selection_does_not_change_when_the_test_items_do(tmp_path: Path, tiny: PreparedData, fake) -> None:
    other = dataclasses.replace(tiny.interactions, test=np.roll(tiny.interactions.test, 1))
    shuffled = PreparedData(tiny.name, other, tiny.features)
    points = []
    for name, data in (("a", tiny), ("b", shuffled)):
        (tmp_path / name).mkdir()
        points.append(make(tmp_path / name, data, fake).work())
    assert points[0].point == points[1].point and points[0].value == points[1].value


def test_the_best_validation_value_is_selected(tmp_path: Path, tiny: PreparedData, fake) -> None:
    values = {}

    def spy(spec, execution=None, **kwargs):
        result = fake(spec, execution, **kwargs)
        values[spec.training.client_lr, spec.training.server_lr_id] = summary(result.valid)["ndcg@50"]
        return result

    study = make(tmp_path, tiny, spy)
    found = study.work()
    assert len(values) == 16 == found.tried
    assert found.value == max(values.values())
    assert values[found.point["client_lr"], found.point["server_lr"]] == found.value
    curve = study.trials()[0].intermediate_values
    assert list(curve) == [1, 2, 3], "learning curves are reported round by round"


def test_a_point_that_diverges_is_recorded_and_not_tried_again(tmp_path: Path, tiny: PreparedData, fake) -> None:
    calls = []

    def runner(spec, execution=None, **kwargs):
        calls.append(spec)
        if spec.training.client_lr == 0.1:
            raise FedVLRError("the loss is NaN")
        return fake(spec, execution, **kwargs)

    found = make(tmp_path, tiny, runner).work()
    assert (found.tried, found.failed, len(calls)) == (12, 4, 16)
    assert make(tmp_path, tiny, runner).work() == found and len(calls) == 16


def test_nothing_to_select_from_is_an_error(tmp_path: Path, tiny: PreparedData) -> None:
    def runner(*_: object, **__: object):
        raise FedVLRError("the loss is NaN")

    with pytest.raises(FedVLRError, match="no successful trial: the loss is NaN"):
        make(tmp_path, tiny, runner).work()


def test_an_interrupt_puts_the_trial_up_again_at_once(tmp_path: Path, tiny: PreparedData, fake) -> None:
    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tiny, interrupted).work()
    assert make(tmp_path, tiny, fake).work().tried == 16
    assert states(tmp_path)["RUNNING"] == 0


def test_pruning_is_off_unless_asked_for(tmp_path: Path, tiny: PreparedData, fake, monkeypatch) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)
    (tmp_path / "off").mkdir()
    assert make(tmp_path / "off", tiny, fake).work().tried == 16
    (tmp_path / "on").mkdir()
    study = make(tmp_path / "on", tiny, fake, pruning=True)
    while study.step():
        pass
    assert {trial.state for trial in study.trials()} == {TrialState.PRUNED}


def test_the_name_changes_with_all_that_defines_the_study(tiny: PreparedData) -> None:
    spec = StudySpec(BASE, space_of("FedAvg"))
    changes = [
        dataclasses.replace(spec, base=BASE.model_copy(update={"seed": 1})),
        dataclasses.replace(spec, base=BASE.model_copy(update={"training": TrainingConfig(rounds=4)})),
        dataclasses.replace(spec, space=space_of("FedAvg+ours")),
        dataclasses.replace(spec, method="tpe", trials=5),
        dataclasses.replace(spec, method="tpe", trials=6),
        dataclasses.replace(spec, pruning=True),
    ]
    names = {s.name(tiny.fingerprint) for s in (spec, *changes)} | {spec.name("0" * 64)}
    assert len(names) == len(changes) + 2
    assert dataclasses.replace(spec, trials=99).name("x") == spec.name("x"), "a grid has no budget"
