"""`fedvlr doctor`: packages, device, and what a broken installation looks like."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli import doctor
from fedvlr_plugin.cli.main import app

RUNNER = CliRunner()


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
