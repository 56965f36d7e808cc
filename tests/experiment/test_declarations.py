"""Searches, experiments and reports know backbones by what they declare, never by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedvlr_plugin
from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.centralized.model_registry import OURS
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.profiles import PROFILES, settings_for
from fedvlr_plugin.experiment.rows import VARIANTS, parse_row
from fedvlr_plugin.reporting.table3 import closed_form

PACKAGE = Path(fedvlr_plugin.__file__).parent
ROOMS = ("search", "experiment", "reporting")
NAMES = [*BACKBONES, *(name for name in OURS if name not in VARIANTS)]  # "VBPR" is the name of a fusion, too
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def strings(source: str) -> Iterator[str]:
    """String constants that are not docstrings (a string alone in a statement)."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def named(source: str) -> list[str]:
    """Names of rows that a file's strings contain."""
    return [name for text in strings(source) for name in NAMES if re.search(rf"\b{name}\b", text)]


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_names_a_row(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    found = {path.name: names for path in files if (names := named(path.read_text(encoding="utf-8")))}
    assert not found


def test_the_search_for_names_finds_them() -> None:
    assert named('"""FedAvg in a docstring."""\nx = {"FedAvg": 1, f"{x}FCF+ours": 2}\n') == ["FedAvg", "FCF"]


def test_settings_of_a_row_go_between_the_profiles_two_lists() -> None:
    """FedNCF under `quick` by hand: 24 rounds for all, 16 by its own rule, 30 on ml by the profile's rule for ml."""
    quick = PROFILES["quick"]
    assert settings_for(quick, "ml-100k", parse_row("FCF"))["rounds"] == 24
    assert settings_for(quick, "ml-100k", parse_row("FedNCF"))["rounds"] == 16
    assert settings_for(quick, "ml-100k", parse_row("FedNCF+ours"))["rounds"] == 12
    assert settings_for(quick, "ml", parse_row("FedNCF"))["rounds"] == 30
    assert settings_for(quick, "ml", parse_row("BM3"))["rounds"] == 8
    assert settings_for(quick, "ml", parse_row("Pop"))["rounds"] == 24


def test_a_row_without_a_closed_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="'popularity' has no closed form"):
        closed_form("popularity", 10, 10)
