"""Searches through the table runner: search, selection, final runs, resumption, rebuilding from the results folder."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import FAILED, INTERRUPTED, OK, USAGE, main
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import FedVLRError, ResultsError
from fedvlr_plugin.experiment.profiles import PROFILES
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.search.selection import all_tuned
from fedvlr_plugin.search.storage import open_storage
from fedvlr_plugin.search.tuner import cells_for


@pytest.fixture
def call(tmp_path: Path, tiny: PreparedData, fake):
    specs: list[tuple[RunSpec, bool]] = []
    sources = Sources(lambda root: ["tiny"], lambda name, root: name, lambda name, root: tiny)

    def runner(spec, execution=None, *, data, **kwargs):
        if call.stop_at is not None and len(specs) >= call.stop_at:
            raise KeyboardInterrupt
        specs.append((spec, data.fingerprint == tiny.fingerprint))
        if spec.row == call.failing:
            raise FedVLRError("the loss is NaN")
        return fake(spec, execution, data=data, **kwargs)

    def call(*options: str) -> int:
        argv = ["--results", str(tmp_path / "r"), "--set", "rounds=2", "--datasets", "tiny", *options]
        return main(argv, sources=sources, runner=runner)

    call.specs, call.root, call.stop_at, call.failing = specs, tmp_path / "r", None, None
    return call


SEARCH = ("--rows", "popularity", "FedAvg", "FCF", "--search", "tpe", "--trials", "3", "--seeds", "2")


def test_search_then_seeds_then_table(call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*SEARCH) == OK
    real = [spec for spec, seen in call.specs if seen]
    trials = [spec for spec, seen in call.specs if not seen]
    assert len(trials) == 6 and [(s.row, s.seed) for s in real] == [
        ("popularity", 0), ("FedAvg", 0), ("FedAvg", 1), ("FCF", 0), ("FCF", 1),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "2 cells to search: 10 trials and runs to do, about" in out and "trial 3 of 3: validation NDCG@50" in out
    for tuned in all_tuned(ResultsStore(call.root), "quick", "corrected"):
        chosen = [s for s in real if s.row == tuned.base.row]
        assert all(s.training.client_lr == pytest.approx(tuned.point["client_lr"], rel=1e-5) for s in chosen)
        assert tuned.tried == 3
    assert call(*SEARCH) == OK
    assert len(call.specs) == 11, "nothing is done twice"
    assert "0 trials and runs to do." in capsys.readouterr().out


def test_the_table_is_rebuilt_from_the_results_folder_alone(call) -> None:
    call(*SEARCH)
    for file in call.root.glob("studies.db*"):
        file.unlink()
    specs = [spec for tuned in all_tuned(ResultsStore(call.root), "quick", "corrected") for spec in tuned.specs()]
    table = build_table(ResultsStore(call.root), specs)
    assert {row: cell.figures["hr@50"].n for (row, _), cell in table.cells.items()} == {"FedAvg": 2, "FCF": 2}
    before = len(call.specs)
    assert call(*SEARCH) == OK and len(call.specs) == before, "the selections make the database superfluous"


def test_more_seeds_need_no_new_search(call) -> None:
    call(*SEARCH)
    call(*SEARCH[:-1], "3")
    more = call.specs[11:]
    assert [(spec.row, spec.seed, real) for spec, real in more] == [("FedAvg", 2, True), ("FCF", 2, True)]


@pytest.mark.parametrize("stop_at", [2, 5, 9])
def test_an_interrupt_anywhere_loses_one_trial_at_most(call, stop_at: int) -> None:
    call.stop_at = stop_at
    assert call(*SEARCH) == INTERRUPTED
    call.stop_at = None
    assert call(*SEARCH) == OK
    assert len(call.specs) == 11
    for name in optuna.get_all_study_names(f"sqlite:///{call.root / 'studies.db'}"):
        trials = optuna.load_study(study_name=name, storage=f"sqlite:///{call.root / 'studies.db'}").trials
        assert not any(t.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING) for t in trials)


def test_a_cell_that_fails_is_named_each_time_and_does_not_stop_the_others(call, capsys) -> None:
    call.failing = "FedAvg"
    for _ in range(2):
        assert call(*SEARCH) == FAILED
        shown = capsys.readouterr()
        assert "tiny FedAvg" in shown.err and "the loss is NaN" in shown.err
        assert "│ FedAvg" in shown.out and "│ FCF" in shown.out
    assert sum(real for spec, real in call.specs if spec.row == "FCF") == 2


def test_waiting_for_another_worker_is_said_once(call, monkeypatch, capsys) -> None:
    only = ("--rows", "FedAvg", "--search", "tpe", "--trials", "3", "--seeds", "1")
    call.stop_at = 0
    assert call(*only) == INTERRUPTED
    storage = open_storage(f"sqlite:///{call.root / 'studies.db'}")
    (study,) = storage.get_all_studies()
    trial = storage.get_all_trials(study._study_id, states=(TrialState.WAITING,))[0]
    storage.record_heartbeat(trial._trial_id)
    assert storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)  # by somebody who is silent from now on
    pauses = iter([None, None])

    def sleep(seconds: float) -> None:
        if next(pauses, KeyboardInterrupt) is KeyboardInterrupt:
            raise KeyboardInterrupt

    monkeypatch.setattr("fedvlr_plugin.search.tuner.time.sleep", sleep)
    call.stop_at = None
    capsys.readouterr()
    assert call(*only) == INTERRUPTED
    assert len(call.specs) == 2, "the others are done meanwhile"
    waiting = "waiting for other workers in 1 cell; what a killed one left is taken over after 60 s of silence"
    assert capsys.readouterr().out.count(waiting) == 1


def test_a_missing_result_of_a_finished_cell_is_computed_again(call) -> None:
    call(*SEARCH)
    (path,) = (call.root / "runs").glob("tiny--FCF--corrected--s1--*.json")
    path.unlink()
    call(*SEARCH)
    assert [(s.row, s.seed) for s, _ in call.specs[11:]] == [("FCF", 1)] and path.is_file()


def test_overwriting_and_searching_exclude_each_other(call, capsys) -> None:
    assert call(*SEARCH, "--overwrite", "always") == USAGE
    assert "cannot be used with a search" in capsys.readouterr().err and not call.specs


@pytest.mark.parametrize("option", [("--storage", "sqlite:///x.db"), ("--trials", "3"), ("--pruning",)])
def test_options_of_a_search_without_a_search_are_refused(call, capsys, option) -> None:
    assert call("--rows", "FedAvg", *option) == USAGE
    assert f"error: {option[0]} is an option of a search, and here is none" in capsys.readouterr().err
    assert not call.specs


def test_a_storage_out_of_reach_is_told_before_data_are_read(call, capsys) -> None:
    assert call(*SEARCH, "--storage", "postgresql+nodriver://u:secret@h/x") == USAGE
    shown = capsys.readouterr()
    assert shown.err.startswith("error: --storage: ") and shown.err.count("\n") == 1 and "secret" not in shown.err
    assert "30 users" not in shown.out and not call.specs


def test_a_damaged_selection_is_named(call) -> None:
    call(*SEARCH)
    path = next((call.root / "studies").glob("*.json"))
    path.write_text(path.read_text().replace('"tried"', '"tired"'))
    with pytest.raises(ResultsError, match="not a selection this version can read"):
        all_tuned(ResultsStore(call.root), "quick", "corrected")


def test_the_paper_profile_searches_the_deciding_cells_first_and_fully() -> None:
    rows = ["FedNCF", "FedAvg+VBPR", "FedAvg", "FedRAP+ours", "PGL"]
    cells = cells_for(PROFILES["paper"], ["ku"], rows, "corrected", {})
    assert [cell.study.base.row for cell in cells] == ["FedAvg", "FedRAP+ours", "PGL", "FedNCF", "FedAvg+VBPR"]
    assert [cell.study.method for cell in cells] == ["grid"] * 3 + ["tpe"] * 2
    assert [cell.seeds for cell in cells] == [5, 5, 5, 3, 3]
    assert not PROFILES["quick"].search and not PROFILES["smoke"].search


def test_a_storage_that_fails_on_the_way_is_one_line_and_loses_nothing(call, monkeypatch, capsys) -> None:
    """A full disk, say: Optuna's error in the middle of a search."""
    only = ("--rows", "FedAvg", "--search", "tpe", "--trials", "3", "--seeds", "1")
    calls = []

    def full(self, *arguments, **more):
        calls.append(1)
        if len(calls) > 4:
            raise optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
        return settled(self, *arguments, **more)

    settled = RDBStorage.set_trial_state_values
    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "set_trial_state_values", full)
        assert call(*only) == USAGE
    shown = capsys.readouterr().err
    assert (
        "error: the study storage failed" in shown and "the same command goes on" in shown and "Traceback" not in shown
    )
    assert call(*only) == OK
