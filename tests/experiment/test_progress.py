"""Progress lines, the clock, and the live view."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from fedvlr_plugin.experiment.profiles import Profile, Rule, spec_for
from fedvlr_plugin.experiment.progress import Clock, LiveProgress, PlainProgress, describe, make_progress, outcome_of
from fedvlr_plugin.experiment.store import ResultsStore

RULES: tuple[Rule, ...] = (
    ("*", "*", {"rounds": 10, "params": {"a": 1}}),
    ("ku", "*", {"rounds": 20}),
    ("ku", "*+ours", {"client_lr": 0.5, "params": {"b": 2}}),
)
TEST = Profile("test", "for tests", 2, None, RULES)


def test_the_clock_weighs_runs_by_their_cost() -> None:
    time = iter([0.0, 10.0, 15.0])
    clock = Clock([1.0, 3.0], now=lambda: next(time))
    clock.next()
    clock.finish()
    assert clock.left() == pytest.approx(3 * 10.2 / 1.2)  # a quarter of the work took 10 s; 0.2 s are trusted
    clock.next()
    assert clock.left(1 / 3) == pytest.approx(2 * 15.2 / 2.2)  # half of it took 15 s


def test_a_slow_first_round_does_not_promise_hours() -> None:
    """Ten runs of 60 rounds and 30 s each; the first round takes 15 s more than it should, for loops are compiled."""
    time = iter([0.0, 15.5])
    clock = Clock([30.0] * 10, now=lambda: next(time))
    clock.next()
    assert clock.left(1 / 60) < 2 * 300


def test_before_anything_is_done_the_estimate_is_the_time_left() -> None:
    clock = Clock([20.0, 30.0], now=lambda: 0.0)
    clock.next()
    assert clock.left() == pytest.approx(50.0)


def test_plain_lines_say_where_it_is(tmp_path, tiny, fake) -> None:
    lines: list[str] = []
    progress = PlainProgress(lines.append, every=0.0)
    spec = spec_for(TEST, "tiny", "FedAvg", 0, overrides={"rounds": 2})
    progress.start([2.0, 2.0])
    progress.run_started(describe(spec), 2)
    result = fake(spec, data=tiny, on_round=progress.round_done)
    record = ResultsStore(tmp_path).append(result, tiny)
    progress.run_done(describe(spec), outcome_of(record))
    progress.run_started(describe(spec), 2)
    progress.run_done(describe(spec), "FAILED: it diverged")
    progress.stop()
    assert lines[0] == "[1/2] tiny FedAvg, seed 0 ..."
    assert lines[1].startswith("    round 1 of 2, validation NDCG@50 ") and "left in all" in lines[1]
    assert f"HR@50 {record.test['hr@50']:.2f}" in lines[3] and "best round 2 of 2" in lines[3] and "left" in lines[3]
    assert lines[-1] == "[2/2] tiny FedAvg, seed 0: FAILED: it diverged"


def test_the_live_view_draws_bars_on_a_terminal(tmp_path, tiny, fake) -> None:
    console = Console(force_terminal=True, width=120, record=True, file=open(tmp_path / "screen", "w"))  # noqa: SIM115
    progress = make_progress(console)
    assert isinstance(progress, LiveProgress)
    spec = spec_for(TEST, "tiny", "FedAvg", 0, overrides={"rounds": 2})
    progress.start([2.0])
    progress.run_started(describe(spec), 2)
    record = ResultsStore(tmp_path).append(fake(spec, data=tiny, on_round=progress.round_done), tiny)
    progress.run_done(describe(spec), outcome_of(record))
    progress.stop()
    progress.stop()
    console.file.close()
    screen = (tmp_path / "screen").read_text()
    assert "tiny FedAvg, seed 0: HR@50" in screen and "1/1" in screen and "2/2" in screen
    assert isinstance(make_progress(Console(force_terminal=False)), PlainProgress)


def test_the_live_view_shows_cells_runs_and_rounds_however_narrow(tmp_path, tiny, fake) -> None:
    for width in (140, 72):
        with open(tmp_path / "screen", "w") as file:
            progress = LiveProgress(Console(force_terminal=True, width=width, file=file))
            progress.start([2.0, 2.0])
            progress.cells_done(1, 3)
            progress.run_started("a data set with a long name FedAvg+ours, trial 11 of 32", 7)
            fake(spec_for(TEST, "tiny", "FedAvg", 0, overrides={"rounds": 5}), data=tiny, on_round=progress.round_done)
            progress.stop()
        lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r\n") for line in (tmp_path / "screen").open()]
        shown = [line for line in lines if line][-3:]
        assert shown[0].startswith("cells ") and " 1/3" in shown[0]
        assert shown[1].startswith("trials and runs ") and " 0/2" in shown[1] and "ETA " in shown[1]
        assert shown[2].startswith("a data set") and " 5/7" in shown[2] and "valid NDCG@50" in shown[2]
        assert max(map(len, shown)) < width, "a full line would wrap when Ctrl-C is echoed"


def test_plain_lines_count_finished_cells_once() -> None:
    lines: list[str] = []
    progress = PlainProgress(lines.append)
    for done in (0, 0, 1, 1, 2):
        progress.cells_done(done, 2)
    assert lines == ["1 of 2 cells finished", "2 of 2 cells finished"]


def test_the_live_view_says_what_it_waits_for(tmp_path) -> None:
    with open(tmp_path / "screen", "w") as file:
        progress = LiveProgress(Console(force_terminal=True, width=140, file=file))
        progress.start([2.0])
        progress.waiting(2, 60)
        progress.waiting(2, 60)
        progress.stop()
    screen = (tmp_path / "screen").read_text()
    assert screen.count("waiting for other workers in 2 cells; what a killed one left is taken over after 60 s") == 1
