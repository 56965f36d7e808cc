"""Ctrl-C and kill -9 in the middle of a search, from outside: the real command in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import optuna
from helpers.paths import ROOT
from helpers.signals import heeds_signals

from fedvlr_plugin.experiment.rows import REFERENCES
from fedvlr_plugin.experiment.store import ResultsStore

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS, SEEDS = 4, 2
OPTIONS = ["--profile", "smoke", "--datasets", "planted", "--rows", "popularity", "FedAvg", "--search", "tpe"]
OPTIONS += ["--trials", str(TRIALS), "--seeds", str(SEEDS), "--set", "rounds=12"]
# the same command, but a silent worker is taken for dead after two seconds and not after a minute
IMPATIENT = (
    "import sys; from fedvlr_plugin.search import storage; storage.open_storage.__defaults__ = (1, 2); "
    "from fedvlr_plugin.cli.tables import main; sys.exit(main(sys.argv[1:]))"
)


class Command:
    """A run of the command that is stopped by a signal when its output says so."""

    def __init__(self, folder: Path, *start: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *start, *OPTIONS, "--results", "results"],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=heeds_signals,
        )  # fmt: skip

    def stop_at(self, line: str, number: signal.Signals) -> tuple[int, str, str]:
        """Reads until a line holds `line`, sends the signal, and gives status, output and errors."""
        assert self.process.stdout is not None
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        seen = ""
        for text in self.process.stdout:
            seen += text
            if line in text:
                self.process.send_signal(number)
                break
        out, err = self.process.communicate(timeout=60)
        timer.cancel()
        assert line in seen, err
        return self.process.returncode, seen + out, err

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


def states(folder: Path) -> Counter[str]:
    """How many trials of all studies, the queues of final runs among them, are in which state."""
    url = f"sqlite:///{folder / 'results' / 'studies.db'}"
    found: Counter[str] = Counter()
    for study in optuna.get_all_study_names(url):
        found.update(trial.state.name for trial in optuna.load_study(study_name=study, storage=url).trials)
    return found


def begun(out: str) -> list[str]:
    """The trials and runs that were begun, in order."""
    return re.findall(r"^\[\d+/\d+\] (.*) \.\.\.$", out, flags=re.MULTILINE)


SCRIPT = [str(ROOT / "benchmarks" / "run_table2.py")]
EVERYTHING = [f"planted {row}, seed 0" for row in REFERENCES]
EVERYTHING += [f"planted FedAvg, trial {n + 1} of {TRIALS}" for n in range(TRIALS)]
EVERYTHING += [f"planted FedAvg, seed {n}" for n in range(SEEDS)]


def check_finished(folder: Path, outputs: list[str], lost: list[str]) -> None:
    """All is done, once, but for what was under way when each signal came; the table is there."""
    assert Counter(item for out in outputs for item in begun(out)) == Counter([*EVERYTHING, *lost])
    for one, two, item in zip(outputs, outputs[1:], lost, strict=False):
        assert begun(one)[-1] == item and item in begun(two)
    after = states(folder)
    assert after["COMPLETE"] == TRIALS + SEEDS and after["FAIL"] == len(lost)
    assert after["RUNNING"] == after["WAITING"] == 0, "no ghost"
    found = [(record.row, record.seed) for record in ResultsStore(folder / "results").records()]
    assert sorted(found) == sorted([("FedAvg", 0), ("FedAvg", 1), *((row, 0) for row in REFERENCES)])
    assert "FedAvg" in (folder / "results" / "tables" / "table2-smoke-corrected.md").read_text()


def test_after_ctrl_c_and_after_kill_9_the_same_command_goes_on(tmp_path: Path) -> None:
    lost = ["planted FedAvg, trial 3 of 4", "planted FedAvg, seed 1"]

    code, first, err = Command(tmp_path, *SCRIPT).stop_at(f"{lost[0]} ...", signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err and len(err.splitlines()) == 1, err
    assert "Finished runs are stored in 'results'; the same command goes on from there" in err
    stopped = states(tmp_path)
    assert stopped["COMPLETE"] == 2 and stopped["RUNNING"] == 0, "what was under way is put back at once"

    code, second, _ = Command(tmp_path, "-c", IMPATIENT).stop_at(f"{lost[1]} ...", signal.SIGKILL)
    assert code == -signal.SIGKILL
    killed = states(tmp_path)
    assert killed["COMPLETE"] == TRIALS + 1 and killed["RUNNING"] == 1

    code, third, err = Command(tmp_path, "-c", IMPATIENT).finish()
    assert code == 0, err
    check_finished(tmp_path, [first, second, third], lost)
