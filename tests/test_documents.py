"""README and guides: their size, their links, the names they mention, and their examples."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fedvlr_plugin"
SKIPPED = {".venv", ".git", "build", "dist", "data", "scratch", "log", "saved"}
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "benchmarks/**/*.md", "*_configs/*.md", "fedvlr_plugin/**/*.md", "results/*.md")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).parts[0] not in SKIPPED
)
GUIDES = (
    "results",
    "benchmarks",
    "recbole_configs",
    "fedml_configs",
    "fedvlr_plugin",
    "fedvlr_plugin/data",
    "fedvlr_plugin/aggregation",
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def outside_code(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: lower case, punctuation dropped, blanks to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(line) for line in re.findall(r"^#+ (.+)$", outside_code(path.read_text("utf-8")), re.MULTILINE)}


def test_the_readme_fits_on_a_few_screens() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200 and len(README.split()) <= 1800
    assert not [line for line in lines if len(line) > 100]


def test_every_guide_is_there_and_the_readme_links_to_it() -> None:
    targets = {first or second for first, second in LINK.findall(README)}
    for folder in GUIDES:
        assert (ROOT / folder / "README.md").is_file()
        assert any(target.split("#")[0] == f"{folder}/README.md" for target in targets), folder


@by_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    wrong = []
    for first, second in LINK.findall(outside_code(document.read_text(encoding="utf-8"))):
        target, _, fragment = (first or second).partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path = document.parent / target if target else document
        if not path.exists() or (fragment and path.suffix == ".md" and fragment not in anchors(path)):
            wrong.append(first or second)
    assert not wrong


def test_a_link_to_nowhere_is_found() -> None:
    assert LINK.findall("see [x](no/file.md#a), `[y](z)`\n[b]: c.md\n")[:1] == [("no/file.md#a", "")]
    assert anchor("When runs are killed, and clients fail") == "when-runs-are-killed-and-clients-fail"


@cache
def definitions(path: Path) -> set[str]:
    """Names at the top of a file and in its classes, as `name` and `Class.name`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@cache
def sources() -> tuple[Path, ...]:
    """Every Python file of the project."""
    found = ROOT.rglob("*.py")
    return tuple(path for path in found if path.relative_to(ROOT).parts[0] not in SKIPPED)


@by_document
def test_files_and_names_that_a_document_mentions_exist(document: Path) -> None:
    wrong = []
    for path, name in re.findall(r"`([\w/.]+\.py)(?::([\w.]+))?`", document.read_text(encoding="utf-8")):
        files = [file for file in sources() if f"/{file.relative_to(ROOT).as_posix()}".endswith(f"/{path}")]
        if not files or (name and not any(name in definitions(file) for file in files)):
            wrong.append(f"{path}:{name}")
    assert document.name == "CHANGELOG.md" or not wrong


def test_the_life_of_a_cell_names_its_calls() -> None:
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 12
    assert len(re.findall(r"`[\w/]+\.py:[\w.]+`", text)) >= 30


def test_the_floor_plan_has_every_room() -> None:
    plan = (PACKAGE / "README.md").read_text(encoding="utf-8").split("```")[1]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {word for word in re.findall(r"[a-z]+", plan) if (PACKAGE / word / "__init__.py").is_file()}


def test_every_script_is_in_the_guide_of_the_benchmarks() -> None:
    guide = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} == set(
        re.findall(r"^\| `(\w+\.py)`", guide, re.M)
    )


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shortened(example: str) -> str:
    """The example with two rounds."""
    return example.replace('"rounds": 20', '"rounds": 2')


@pytest.mark.slow
@pytest.mark.parametrize(("number", "printed"), [(0, "FedAvg+ours: HR@50"), (1, "ndcg@50"), (2, "selected round")])
def test_the_examples_of_the_readme_run(number: int, printed: str, tmp_path: Path) -> None:
    assert len(EXAMPLES) == 3 and all(len(example.splitlines()) <= 16 for example in EXAMPLES)
    if number == 2:
        pytest.importorskip("grpc", reason="FedML is not installed")
        import yaml

        asked = yaml.safe_load((ROOT / "fedml_configs" / "single_process.yaml").read_text())
        asked["train_args"]["comm_round"] = 2
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(asked))
    (tmp_path / "main.py").write_text(shortened(EXAMPLES[number]))
    done = subprocess.run(
        [sys.executable, "main.py", *(["--cf", "short.yaml"] if number == 2 else [])],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert printed in done.stdout
