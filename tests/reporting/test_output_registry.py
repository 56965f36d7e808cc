"""Outputs by name: built-in ones, those of packages outside, and their sub-commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli.main import app
from fedvlr_plugin.cli.tables import USAGE, main
from fedvlr_plugin.reporting.output import ComputedOutput, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN, get_output

PACKAGE = """
import sys
from fedvlr_plugin.reporting.output import ComputedOutput, RunsOutput

def add_options(parser):
    parser.add_argument("--number", type=int, default=3, help="a number (default: 3)")

def make(options, say):
    say(f"the number is {options.number}")

def draw(finished):
    table = finished.store.figures / "scatter.txt"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(" ".join(record.row for record in finished.records()))
    finished.say(f"Written: {table.name}")

COUNT = ComputedOutput("Count", "Shows a number.", add_options, make)
SCATTER = RunsOutput("Scatter", lambda: ["popularity"], draw)
WRONG = "not an output"
"""


@pytest.fixture
def call(tmp_path: Path):
    """Install a package by its entry points (a .dist-info on the path) and call `fedvlr` in a process of its own."""

    def call(points: str, *words: str, code: str = "from fedvlr_plugin.cli.main import main; main()"):
        (tmp_path / "outside.py").write_text(PACKAGE)
        info = tmp_path / "outside-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fedvlr_plugin.outputs]\n{points}\n")
        start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"
        return subprocess.run(
            [sys.executable, "-c", start, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    return call


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_list_says_what_the_outputs_are(name: str) -> None:
    found, listed = get_output(name), BUILT_IN[name]
    assert found.title == listed.title and listed.summary.endswith(".")
    if isinstance(found, ComputedOutput):
        assert listed.options == "own"
    else:
        assert isinstance(found, RunsOutput) and listed.options == ("noise" if found.with_noise else "runs")


def test_an_unknown_output_is_answered_with_the_nearest(capsys) -> None:
    assert main([], output="tabel2") == USAGE
    assert "Did you mean 'table2'" in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILT_IN)
def test_help_is_whole(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0 and f"usage: fedvlr {name}" in shown.output
    assert "{default}" not in shown.output and "SUPPRESS" not in shown.output and "%(" not in shown.output


def test_help_states_the_true_defaults() -> None:
    text = " ".join(CliRunner().invoke(app, ["table4", "--help"]).output.split())
    for words in ("(default: quick)", "(default: corrected)", "(default: results)", "(default: only-missing)",
                  "(default: paper accounted)", "(default: 1 2 4 8; with --profile smoke: 8)", "(default: 0.05)",
                  "(default: 0.001)"):  # fmt: skip
        assert words in text, words


def test_help_and_a_typing_error_import_nothing_heavy(call) -> None:
    heavy = "print([m for m in ('torch', 'pandas', 'outside') if m in sys.modules])"
    code = f"import atexit; atexit.register(lambda: {heavy}); from fedvlr_plugin.cli.main import main; main()"
    listed = call("scatter = outside:SCATTER", "--help", code=code)
    assert listed.returncode == 0 and listed.stdout.strip().endswith("[]")
    assert "scatter" in listed.stdout and "Output of the package outside 1.0." in listed.stdout
    for words in (("table2", "--seeds", "0"), ("attacks", "--attacks", "magic"), ("faults", "--profile", "huge")):
        refused = call("", *words, code=code)
        assert refused.returncode == 2 and refused.stdout.strip().endswith("[]"), refused.stderr


def test_an_output_of_a_package_outside_has_its_sub_command(call) -> None:
    counted = call("count = outside:COUNT", "count", "--number", "7")
    assert counted.returncode == 0 and counted.stdout == "the number is 7\n", counted.stderr
    options = ("--profile", "smoke", "--results", "r")
    drawn = call("scatter = outside:SCATTER", "scatter", *options)
    assert drawn.returncode == 0 and "Scatter, profile smoke" in drawn.stdout, drawn.stderr
    assert "Written: scatter.txt" in drawn.stdout
    again = call("scatter = outside:SCATTER", "scatter", "--stored", *options)
    assert again.returncode == 0 and "Written: scatter.txt" in again.stdout, again.stderr


@pytest.mark.parametrize(
    ("points", "name", "message"),
    [
        ("table4 = outside:SCATTER", "table2", "the output name 'table4' is taken"),
        ("odd = outside:WRONG", "odd", "must name a RunsOutput or a ComputedOutput"),
        ("scatter = outside:SCATTER", "scater", "Did you mean 'scatter'"),
    ],
)
def test_what_cannot_be_registered_is_one_line(call, points: str, name: str, message: str) -> None:
    done = call(points, name, "--stored", "--results", "r")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
