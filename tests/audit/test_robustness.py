"""The attack bench as a user runs it: one attack, one rule, on generated data."""

import subprocess
import sys

import pytest
from helpers.paths import BENCHMARKS

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.reporting.attacks import attack_grid

SCRIPT = BENCHMARKS / "run_attacks.py"
FIXED = ("--profile", "smoke", "--dataset", "planted", "--row", "FCF")


def start(folder, *options):
    command = [sys.executable, str(SCRIPT), *FIXED, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_an_attack_shows_without_defence_and_less_with_one(tmp_path):
    done = start(tmp_path, "--attacks", "promotion", "--rules", "krum")
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "| FCF" in line
    ]
    exposure = {(row[1], row[2]): float(row[-1]) for row in rows}
    undefended = next(value for (attack, rule), value in exposure.items() if attack == "promotion" and rule == "none")
    defended = next(value for (attack, rule), value in exposure.items() if attack == "promotion" and rule == "krum")
    assert undefended == 100.0 and defended < 50.0
    assert (tmp_path / "results" / "tables" / "attacks-planted-FCF-smoke.csv").is_file()
    means = (tmp_path / "results" / "tables" / "attacks-planted-FCF-smoke-means.md").read_text()
    assert "| krum" in means and f"{undefended:.1f}" in means


def test_means_by_hand():
    lines = [["FCF", "none", "krum", str(seed), "3", hr, "5.00", "2.00"] for seed, hr in enumerate(("10.00", "14.00"))]
    grid = attack_grid(lines)
    assert grid.lines == (("krum", "12.0 ± 2.8 / 5.0 ± 0.0", "2.0 ± 0.0"),)
    with pytest.raises(ResultsError, match="no number"):
        attack_grid([[*lines[0][:5], "x", "1", "2"]])


def test_an_unknown_rule_is_refused_before_any_work(tmp_path):
    refused = start(tmp_path, "--rules", "magic")
    assert refused.returncode == 2 and "magic" in refused.stderr and not list(tmp_path.iterdir())
