"""The notebooks run from a clean kernel; their committed outputs have pictures and name no machine."""

from __future__ import annotations

import getpass
import importlib.util
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import BENCHMARKS

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra dev)")

NOTEBOOKS = sorted((BENCHMARKS / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|opt|mnt|usr|var)/|site-packages|[A-Z]:\\\\")
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of every output."""
    for cell in code_cells(path):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield f"stream {output.name}", output.text
            yield from output.get("data", {}).items()


def test_there_are_three() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


@every
def test_the_committed_outputs_are_those_of_one_run_from_top_to_bottom(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for kind, _ in outputs(path)]
    assert "image/png" in kinds and "stream stderr" not in kinds


@every
def test_the_committed_outputs_name_no_machine(path: Path) -> None:
    user = getpass.getuser() if getpass.getuser() != "root" else None
    for kind, text in outputs(path):
        if kind != "image/png":
            assert not MACHINE.search(text)
            assert not any(name and len(name) > 3 and name in text for name in (platform.node(), user))


@pytest.mark.slow
@every
def test_a_notebook_runs_from_a_clean_kernel(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    place = BENCHMARKS / "run_notebooks.py"
    spec = importlib.util.spec_from_file_location("run_notebooks", place)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    done = script.execute(path, tmp_path)
    counts = [cell.execution_count for cell in done.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
