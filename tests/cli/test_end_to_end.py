"""The script as a user starts it: real runs on the generated data set, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import BENCHMARKS, ROOT

from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.rows import REFERENCES
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.table2.formats import latex
from fedvlr_plugin.reporting.table_formats import escape_latex

SCRIPT = BENCHMARKS / "run_table2.py"
ASKED = ["chance", "popularity", "FedAvg", "FedAvg+MLP", "FedAvg+ours"]
ROWS = [*REFERENCES, "FedAvg", "FedAvg+MLP", "FedAvg+ours"]  # what the table has then


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "FEDVLR_DATA"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("user")
    return folder, start(folder, "--profile", "smoke", "--rows", *ASKED)


def test_smoke_profile_runs_and_leaves_results_only(finished) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Table 2, profile smoke")
    assert all(row in done.stdout for row in ROWS) and "HR@50" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["results"], "nothing else is left in the working directory"
    names = {path.name for path in (folder / "results" / "tables").iterdir()}
    assert names == {f"table2-smoke-corrected.{kind}" for kind in ("md", "csv", "tex", "png", "svg")}
    assert "planted is made up" in done.stdout, "what fusion does on the generated data says nothing about the method"


def test_the_table_follows_from_the_store(finished) -> None:
    folder, _ = finished
    store = ResultsStore(folder / "results")
    table = build_table(store, specs_for(PROFILES["smoke"], ["planted"], ROWS, 1), profile="smoke")
    assert len(table.cells) == len(ROWS)
    text = (folder / "results" / "tables" / "table2-smoke-corrected.md").read_text()
    for cell in table.cells.values():
        for figure in cell.figures.values():
            assert f"{figure.mean:.2f}" in text
    (ours,) = table.cells["FedAvg+ours", "planted"].records
    assert store.outputs(ours) == {}, "private results are kept only when asked for by name"
    assert ours.cost.client_updates and ours.cost.samples and ours.cost.wall_s > 0 and ours.cost.peak_rss_bytes > 0


def test_running_again_computes_nothing(finished) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "runs").iterdir()}
    again = start(folder, "--profile", "smoke", "--rows", *ASKED)
    assert again.returncode == 0 and f"0 runs to do; {len(ROWS)} of {len(ROWS)} stored" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "results" / "runs").iterdir()} == before


def test_a_user_error_is_one_line_without_traceback(finished) -> None:
    folder, _ = finished
    wrong = start(folder, "--datasets", "plantd")
    assert wrong.returncode == 2 and "Did you mean 'planted'?" in wrong.stderr
    assert wrong.stderr.count("\n") == 1 and "Traceback" not in wrong.stderr


def test_latex_is_balanced_and_escaped(finished) -> None:
    folder, _ = finished
    text = (folder / "results" / "tables" / "table2-smoke-corrected.tex").read_text()
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 2 + len(ROWS)
    assert len({line.count(" & ") for line in body[1:]}) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}") and r"\textbf{" in text and r"\pm" not in body[-1]
    assert text.isascii()
    assert escape_latex("a_b & 5 %") == r"a\_b \& 5 \%"
    assert latex(build_table(ResultsStore(folder), [])).count("midrule") == 1
