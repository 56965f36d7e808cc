"""The order of the rooms: a room imports only rooms of lower levels, and no file imports itself in a circle.

Every import of the package is read with `ast`, those inside functions included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fedvlr_plugin"
ORDER = """
errors rng compat paper
registry files locks threads streams config devices versions config_files declarations
tensor_files data privacy
features fusion evaluation aggregation
backbones centralized
engines
federation
experiment
search audit integrations profiling api testing
reporting
cli
"""
LEVELS = {room: level for level, line in enumerate(ORDER.split("\n")) for room in line.split()}
MOST_MODULES = 24


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; a package stands for its `__init__`."""
    files = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items() if name not in ("__init__",)}


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fedvlr_plugin":
            module = (node.module or "").removeprefix("fedvlr_plugin").lstrip(".")
            for alias in node.names:
                longer = f"{module}.{alias.name}".lstrip(".")
                yield longer if longer in known else module
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("fedvlr_plugin.") for a in node.names if a.name.startswith("fedvlr_plugin.")
            )


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: {m for m in imports(name, path, known) if m and m != name} for name, path in known.items()}


def test_rooms_import_downwards_only() -> None:
    wrong = []
    for name, imported in graph().items():
        room = name.split(".")[0]
        assert room in LEVELS, f"'{room}' has no level in ORDER"
        for other in sorted(imported):
            below = other.split(".")[0]
            if below != room and LEVELS[below] >= LEVELS[room]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_itself_in_a_circle() -> None:
    tuple(TopologicalSorter(graph()).static_order())  # raises CycleError and names the circle


def test_no_folder_is_crowded() -> None:
    crowded = {
        str(folder.relative_to(PACKAGE)): count
        for folder in [PACKAGE, *(p for p in PACKAGE.rglob("*") if p.is_dir())]
        if (count := sum(1 for p in folder.glob("*.py") if p.name != "__init__.py")) > MOST_MODULES
    }
    assert not crowded


def test_pytest_is_imported_by_the_shipped_suites_only() -> None:
    for name, path in modules().items():
        roots = {
            root.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for root in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert "pytest" not in roots or name.split(".")[0] == "testing", f"{name} imports pytest"
