"""How tests start FedML's own processes, and the small run that they start."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from helpers.paths import HELPERS, ROOT

LIMIT = 240
SMALL = [
    "dataset=generated:6x40x90",
    "fedvlr_row=FedRAP+ours",
    "fedvlr_dtype=float64",
    "epochs=2",
    "batch_size=16",
    "fedvlr_settings={dim: 8, router_hidden: 6}",
]
real_fedml = pytest.mark.skipif(
    getattr(find_spec("fedml"), "origin", None) is None, reason="fedml is not installed; `make test` installs it"
)

BESIDE = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
MPIRUN = shutil.which("mpirun", path=BESIDE)  # one of this environment goes first: mpi4py loads its library


def environment():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def parsed(settings: list[str]) -> dict[str, object]:
    """Settings of the form name=value, values as YAML."""
    return {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in settings)}


def up(folder, rounds, *more):
    command = [sys.executable, "-m", "fedvlr_plugin.cli", "fedml", "up", "--clients", "2", "--folder", str(folder)]
    command += ["--timeout", str(LIMIT - 20)]
    for value in (*SMALL, f"comm_round={rounds}", *more):
        command += ["--set", value]
    return command


def finish(command, cwd):
    done = subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Watched:
    """What a command printed, the files it opened for writing or made, the addresses it asked for, and its folder."""

    folder: Path
    out: str
    files: frozenset[str]
    network: tuple[str, ...]

    def written_elsewhere(self) -> set[str]:
        """Files outside the run's folder, but for Python's trial: eight letters where it first asks for TMPDIR."""
        trials = self.folder.parents[1] / "TMPDIR"
        return {
            name
            for name in self.files
            if not Path(name).is_relative_to(self.folder)
            and not (Path(name).parent == trials and len(Path(name).name) == 8)
        }


def watched(command: list[str], place: Path) -> Watched:
    """Run a command with HOME, the temporary folder and the working folder empty, and note what it asks for.

    The working folder is `place / "cwd"`, the run's own folder `run` inside it.
    """
    places = {name: place / name for name in ("HOME", "TMPDIR", "cwd")}
    for folder in places.values():
        folder.mkdir()
    base = environment()
    base.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it in this process once another test asked for the folder
    base.pop("NUMBA_CACHE_DIR", None)  # conftest's; without it no compiled loops are kept where Python keeps nothing
    path = os.pathsep.join([str(HELPERS / "watch"), str(HELPERS.parent), base["PYTHONPATH"]])
    more = {"FEDVLR_WATCH": str(place / "log"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    env = base | more | {"HOME": str(places["HOME"]), "TMPDIR": str(places["TMPDIR"])}
    done = subprocess.run(command, env=env, cwd=places["cwd"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not list(places["HOME"].iterdir()) and not list(places["TMPDIR"].iterdir())
    lines = [line.split("\t") for line in (place / "log").read_text().splitlines()]
    files = frozenset(what for kind, what in lines if kind == "file")
    return Watched(places["cwd"] / "run", done.stdout, files, tuple(what for kind, what in lines if kind == "network"))
