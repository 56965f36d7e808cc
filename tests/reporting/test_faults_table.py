"""Drop-outs and stragglers from the command line to a table."""

import subprocess
import sys

import pytest
from helpers.paths import BENCHMARKS

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.experiment.variants import fault_suffix, with_faults

SCRIPT = BENCHMARKS / "run_faults.py"


def start(folder, *options):
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_only_federated_rows_meet_faults():
    ours, floor = RunSpec(dataset="d", row="FCF"), RunSpec(dataset="d", row="popularity")
    assert with_faults(floor, 0.3, 0.1) is floor and with_faults(ours, 0.0, 0.0) is ours
    changed = with_faults(ours, 0.3, 0.1)
    assert changed.conditions.faults is not None and changed.spec_hash != ours.spec_hash
    assert fault_suffix(0.3, 0.125) == "-dropout30-stragglers12p5" and fault_suffix(0.0, 0.0) == ""


def test_the_script_runs_what_is_missing_and_prints_every_level(tmp_path):
    arguments = ("--profile", "smoke", "--datasets", "planted", "--rows", "FCF")
    done = start(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    table = tmp_path / "results" / "tables" / "faults-smoke-planted.md"
    (row,) = [line for line in table.read_text().splitlines() if line.startswith("| FCF")]
    assert row.count("/") == 3 and " - " not in row and "│ FCF" in done.stdout
    names = sorted(path.name for path in (tmp_path / "results" / "tables").iterdir())
    assert names == [f"faults-smoke-planted.{kind}" for kind in ("csv", "md", "tex")], "Table 2 itself is left alone"
    again = start(tmp_path, *arguments)
    assert "0 runs to do; 3 of 3 stored" in again.stdout and row in table.read_text()
    table.unlink()
    shown = start(tmp_path, "--stored", *arguments)
    assert shown.returncode == 0 and row in (table.parent / table.name).read_text(), "drawn again from the store alone"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rows", "VBPR"), "has no clients that could fail"),
        (("--rows", "FCF", "--dropout", "0.5"), "leave --dropout and --stragglers out"),
        (("--rows", "FCF", "--search", "tpe"), "leave --search tpe out"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path, options, message):
    refused = start(tmp_path, "--profile", "smoke", "--datasets", "planted", *options)
    assert refused.returncode == 2 and message in refused.stderr and refused.stderr.count("\n") == 1
