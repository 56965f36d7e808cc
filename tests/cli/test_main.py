"""The command `fedvlr`: version, help, Table 2, and a light start."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import fedvlr_plugin
from fedvlr_plugin import versions
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


def test_the_command_line_imports_nothing_heavy() -> None:
    """Typing errors and --help must be answered at once, so torch and pandas wait until a command needs them."""
    code = (
        "import sys, fedvlr_plugin.cli, fedvlr_plugin.cli.tables as c; c.parse_options([]);"
        "import fedvlr_plugin.cli.tables, fedvlr_plugin.versions as v; v.version_lines();"
        "print([m for m in ('torch', 'pandas', 'recbole', 'scipy', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
