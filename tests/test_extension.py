"""A package from outside adds a backbone, a view, a rule, a data source and a figure by entry points alone.

Its source is in `helpers/third_party_package`; CONTRIBUTING.md shows it file by file. It is built as a wheel and installed
into a folder of its own, which fresh processes have on their path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import HELPERS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = HELPERS / "third_party_package"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package's wheel was installed into."""
    scratch = tmp_path_factory.mktemp("third-party")
    shutil.copytree(SOURCE, scratch / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = [*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(scratch)]
    done = subprocess.run([*build, str(scratch / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = scratch.glob("*.whl")
    subprocess.run(
        [*PIP, "install", "--no-deps", "--no-index", "--target", str(scratch / "site"), str(wheel)], check=True
    )
    return scratch / "site"


def python(site: Path, cwd: Path, *arguments: str, expected: int = 0) -> str:
    """Run Python with the package installed, outside the source tree; return what it printed."""
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("FEDVLR_DATA", None)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_passes_the_shipped_suites(site: Path, tmp_path: Path) -> None:
    suite = shutil.copy(SOURCE / "test_fedvlr_example.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    out = python(site, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(suite))
    passed = re.search(r"(\d+) passed", out)
    assert passed is not None and int(passed.group(1)) > 70 and "failed" not in out


def test_a_suite_fails_for_a_backbone_whose_engines_differ(site: Path, tmp_path: Path) -> None:
    """The suite can fail: a score that depends on how many clients are in the block is found."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_wrong.py").write_text(
        "from fedvlr_example.metric_fed import MetricFed\n"
        "from fedvlr_plugin.backbones import BACKBONES\n"
        "from fedvlr_plugin.testing import BackboneTests\n\n\n"
        "class Wrong(MetricFed):\n"
        "    name = 'Wrong'\n\n"
        "    def logits(self, x):\n"
        "        return super().logits(x) * x.private('b').shape[0]\n\n\n"
        "BACKBONES.add('Wrong', Wrong)\n\n\n"
        "class TestWrong(BackboneTests):\n"
        "    backbone = 'Wrong'\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", "engines_agree and none and adam"]
    out = python(site, tmp_path, "-m", "pytest", *options, "test_wrong.py", expected=1)
    assert re.search(r"\d+ failed", out)


def test_fedvlr_lists_what_it_adds_and_where_it_is_from(site: Path, tmp_path: Path) -> None:
    out = python(site, tmp_path, "-m", "fedvlr_plugin.cli", "list")
    kinds: dict[str, dict[str, str]] = {}
    for line in out.splitlines():
        if line.endswith(":"):
            names = kinds.setdefault(line.removesuffix(":"), {})
        else:
            name, _, origin = line.strip().partition("  ")
            names[name] = origin.strip()
    added = {
        "rows": "MetricFed+ours",
        "backbones": "MetricFed",
        "views": "soft-maximum",
        "aggregation rules": "inverse_norm",
        "data sets": "corner-shop",
        "outputs": "best-rounds",
    }
    for kind, name in added.items():
        assert kinds[kind][name] == "fedvlr-example 1.0"
    assert (
        kinds["backbones"]["FedAvg"] == kinds["data sets"]["planted"] == kinds["outputs"]["table2"] == "fedvlr-plugin"
    )
    assert {"clip", "tfidf"} <= set(kinds["encoders"])


def test_its_figure_shows_its_rows_on_its_data(site: Path, tmp_path: Path) -> None:
    arguments = [
        "--datasets",
        "corner-shop",
        "--rows",
        "metricfed",
        "MetricFed+ours",
        "--profile",
        "smoke",
        "--seeds",
        "1",
    ]
    settings = ["--set", "views=sum,soft-maximum"]
    out = python(site, tmp_path, "-m", "fedvlr_plugin.cli", "best-rounds", *arguments, *settings)
    figures = tmp_path / "results" / "figures"
    text = (figures / "best-rounds-smoke-corrected.csv").read_text()
    assert "corner-shop,MetricFed," in text and "corner-shop,MetricFed+ours," in text
    assert "Written: best-rounds" in out


def test_a_name_that_nobody_has_gets_the_nearest_of_the_package(site: Path, tmp_path: Path) -> None:
    out = python(site, tmp_path, "-m", "fedvlr_plugin.cli", "best-rounds", "--rows", "MetricFad", expected=2)
    assert "Did you mean 'MetricFed'?" in out


def unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def test_contributing_shows_the_package_as_it_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = [path for path in sorted(SOURCE.rglob("*")) if path.suffix in (".py", ".toml")]
    sources = "\n".join(unindented(path.read_text(encoding="utf-8")) for path in files)
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        assert unindented(block) in sources, f"CONTRIBUTING.md shows what is not in the package:\n{block}"
