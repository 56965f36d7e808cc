"""How tests start FedML's own processes, and the small run that they start."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.paths import ROOT

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
