"""The command `fedvlr`: version, doctor, table2, and what a broken installation looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedvlr_plugin
from fedvlr_plugin import versions
from fedvlr_plugin.cli import doctor
from fedvlr_plugin.cli.main import app

RUNNER = CliRunner()


@pytest.mark.parametrize("asked", ["--version", "version"])
def test_version_names_this_package_and_its_hosts(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "fedml":
            raise versions.PackageNotFoundError(name)
        return {"torch": "2.9.1", "recbole": "1.2.1"}[name]

    monkeypatch.setattr(versions, "version", version)
    result = RUNNER.invoke(app, [asked])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"fedvlr-plugin {fedvlr_plugin.__version__}", "torch 2.9.1", "recbole 1.2.1", "fedml not installed"
    ]  # fmt: skip


def test_help_names_the_commands() -> None:
    output = RUNNER.invoke(app, ["--help"]).output
    for command in ("doctor", "table2", "table3", "version", "--version"):
        assert command in output


def test_table2_takes_the_options_of_the_script() -> None:
    result = RUNNER.invoke(app, ["table2", "--rows", "FedAvgg", "FCF", "--profile", "smoke"])
    assert result.exit_code == 2 and "Did you mean 'FedAvg'" in result.output


def test_doctor_lists_packages_and_device() -> None:
    output = RUNNER.invoke(app, ["doctor"]).output
    for text in ("torch 2", "recbole 1", "numpy ", "cpu: ", "cuda"):
        assert text in output


def test_doctor_finds_what_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "BASE", ("torch", "surely-not-installed"))
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 1 and "PROBLEM  surely-not-installed is missing" in result.output

    def broken(name: str) -> None:
        raise ImportError("needs another numpy")

    monkeypatch.setattr(doctor, "import_module", broken)
    output = RUNNER.invoke(app, ["doctor"]).output
    assert "PROBLEM  torch" in output and "cannot be imported: needs another numpy" in output


def test_the_command_line_imports_nothing_heavy() -> None:
    """Typing errors and --help must be answered at once, so torch and pandas wait until a command needs them."""
    code = (
        "import sys, fedvlr_plugin.cli, fedvlr_plugin.cli.tables as c; c.parse_options([]);"
        "import fedvlr_plugin.cli.tables, fedvlr_plugin.versions as v; v.version_lines();"
        "print([m for m in ('torch', 'pandas', 'recbole', 'scipy', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
