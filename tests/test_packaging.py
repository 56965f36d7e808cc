"""Packaging: light import, wheel contents, pins within the declared ranges, and Make's version check."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fedvlr_plugin

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="reading pyproject.toml on Python 3.10 needs tomli")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = ("ray", "fedml", "torchvision", "open_clip", "recbole", "plotly", "matplotlib")


def run_python(code: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_brings_nothing_heavy() -> None:
    loaded = run_python("import sys, json, fedvlr_plugin; print(json.dumps(sorted(sys.modules)))", cwd=ROOT)
    assert not set(HEAVY) & set(json.loads(loaded))


def test_every_package_is_listed_for_the_wheel() -> None:
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "fedvlr_plugin").rglob("__init__.py")}
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert found == {name for name in listed if not name.endswith("_configs")}
    assert PROJECT["tool"]["setuptools"]["package-dir"].keys() == {"fedvlr_plugin"} | (listed - found)


def pins() -> dict[str, Version]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(pinned) for name, pinned in pairs}


def declared() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    texts = PROJECT["project"]["dependencies"] + [text for extra in extras for text in extra]
    return [r for r in map(Requirement, texts) if r.name != "fedvlr-plugin"]


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} has no pin"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not allow {pinned[name]}"


def test_the_packages_the_project_is_built_on_import_together() -> None:
    for name in ("fedml", "open_clip_torch", "recbole", "optuna", "tabulate"):
        try:
            version(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed; `make test` installs every extra")
    code = (
        "from fedvlr_plugin import compat; compat.prepare_recbole(); compat.prepare_torchvision()\n"
        "import torch, pandas, pyarrow, scipy.sparse, recbole.quick_start, optuna, tabulate, open_clip, fedml, mpi4py, grpc\n"
        "print('together')"
    )
    assert run_python(code, cwd=ROOT).endswith("together")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this tree was installed, built from a copy."""
    scratch = tmp_path_factory.mktemp("wheel")
    source = scratch / "source"
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("fedvlr_plugin", "recbole_configs", "fedml_configs"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    no_network = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *no_network, "--no-build-isolation", "--wheel-dir", str(scratch), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = scratch.glob("*.whl")
    subprocess.run([*pip, "install", *no_network, "--target", str(scratch / "site"), str(wheel)], check=True)
    return scratch / "site"


def test_an_installed_wheel_finds_its_files(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, fedvlr_plugin\n"
        "from fedvlr_plugin.config_files import config_folder, config_names, config_path\n"
        "from fedvlr_plugin.paper.tables import __file__ as paper\n"
        "print(json.dumps([fedvlr_plugin.__file__, str(config_folder()), config_names(), paper,\n"
        "                  [config_path(n) for n in config_names()], str(config_folder('fedml_configs'))]))"
    )
    package, folder, names, paper, paths, fedml = json.loads(run_python(code, tmp_path, PYTHONPATH=str(installed)))
    assert Path(package).is_relative_to(installed) and Path(folder).is_relative_to(installed)
    assert Path(fedml).is_relative_to(installed)
    tree = ROOT / "recbole_configs"
    assert sorted(names) == sorted(str(p.relative_to(tree).with_suffix("")) for p in tree.rglob("*.yaml"))
    assert all(Path(path).is_file() for path in paths)
    assert len(list(Path(paper).parent.glob("*.csv"))) == 4


def test_guides_stay_out_of_the_wheel(installed: Path) -> None:
    assert not list((installed / "fedvlr_plugin" / "data").rglob("*.md"))
    assert not (installed / "fedvlr_plugin" / "README.md").exists()


def test_the_source_distribution_can_run_its_tests(tmp_path: Path) -> None:
    skip = shutil.ignore_patterns(".git", ".venv", "published", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=skip)
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert tests <= names
    assert {"constraints.txt", "Makefile", "CITATION.cff", "results/README.md", "fedvlr_plugin/data/README.md"} <= names
    assert {"benchmarks/run_table2.py", "benchmarks/notebooks/01_a_first_table.ipynb"} <= names
    assert "graft results/published" in (ROOT / "MANIFEST.in").read_text()


def test_the_citation_names_this_version_and_its_authors() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fedvlr_plugin.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PROJECT["project"]["authors"]]


def test_every_shipped_setting_carries_its_type_and_meaning() -> None:
    files = sorted((ROOT / "recbole_configs").rglob("*.yaml"))
    assert files
    for path in files:
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                assert re.search(r"# \([\w\[\], .|/*]+\) \S", line), f"{path.name}: '{line}' needs '# (type) meaning'"


def test_make_refuses_other_python_versions(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    newer = tmp_path / "python3.13"
    newer.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 13, 0); exec(sys.argv[1])' \"$2\"\n"
    )
    newer.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={newer}", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "needs Python 3.10 or 3.11" in done.stderr and "got 3.13" in done.stderr
    assert not (tmp_path / "venv").exists()
