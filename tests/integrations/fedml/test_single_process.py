"""A run inside FedML asks for no address, writes only into its folder, and leaves the process as it found it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.fedml_processes import LIMIT, SMALL, environment, real_fedml
from helpers.paths import FEDML_CONFIGS, HELPERS

WATCH = HELPERS / "watch"
QUICK = [*SMALL, "comm_round=1"]

pytestmark = [pytest.mark.slow, real_fedml]


def watched(command, folder):
    """Runs it with HOME, the temporary folder and the working folder empty; what it wrote and asked for."""
    places = {name: folder / name for name in ("HOME", "TMPDIR", "cwd")}
    for place in places.values():
        place.mkdir()
    base = environment()
    base.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it in this process once another test asked for the folder
    base.pop("NUMBA_CACHE_DIR", None)  # conftest's; without it no compiled loops are kept where Python keeps nothing
    path = os.pathsep.join([str(WATCH), base["PYTHONPATH"]])
    more = {"FEDVLR_WATCH": str(folder / "log"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    env = base | more | {"HOME": str(places["HOME"]), "TMPDIR": str(places["TMPDIR"])}
    done = subprocess.run(command, env=env, cwd=places["cwd"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not list(places["HOME"].iterdir()) and not list(places["TMPDIR"].iterdir())
    lines = [line.split("\t") for line in (folder / "log").read_text().splitlines()]
    return done.stdout, {what for kind, what in lines if kind == "file"}, [w for kind, w in lines if kind == "network"]


def is_pythons_trial(name, temporary):
    """Python opens and removes a file of eight letters where it first asks for the temporary folder."""
    return Path(name).parent == temporary and len(Path(name).name) == 8


def command(kind, folder, *more):
    words = [sys.executable, "-m", "fedvlr_plugin.cli", "fedml", kind, "--folder", str(folder), *more]
    return words + [word for value in QUICK for word in ("--set", value)]


@pytest.mark.parametrize("kind", ["run", "up"])
def test_nothing_goes_out_and_nothing_is_written_elsewhere(tmp_path, kind):
    folder = tmp_path / "cwd" / "run"
    more = ("--clients", "2") if kind == "up" else ()
    out, files, network = watched(command(kind, folder, *more), tmp_path)
    assert "round" in out and not network
    inside = {name for name in files if Path(name).is_relative_to(folder)}
    elsewhere = {name for name in files - inside if not is_pythons_trial(name, tmp_path / "TMPDIR")}
    assert inside and elsewhere <= {"/dev/null"}
    assert (folder / "home" / ".fedml").exists(), "the hook saw nothing of what FedML always writes"


IN_PROCESS = """
import logging, multiprocessing, os, random, sys, tempfile, warnings
import numpy, torch
from pathlib import Path
from fedvlr_plugin.cli.main import app
from fedvlr_plugin.cli.fedml import _options
from fedvlr_plugin.integrations.fedml.single_process import run_single

random.seed(1), numpy.random.seed(2), torch.manual_seed(3)

def state():
    return {
        "stdout": (sys.stdout, sys.stdout.write, sys.stderr, sys.excepthook),
        "python": random.getstate(),
        "numpy": str(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.backends.cudnn.deterministic,
        "start method": multiprocessing.get_start_method(allow_none=True),
        "logging": (logging.root, logging.root.level, list(logging.root.handlers)),
        "folders": (os.getcwd(), os.environ.get("HOME"), os.environ.get("TMPDIR"), tempfile.tempdir),
        "threads": torch.get_num_threads(),
        "arguments": list(sys.argv),
        "dtype": torch.get_default_dtype(),
    }

before = state()
lines = []
run_single(Path(sys.argv[1]), Path("run"), _options(sys.argv[2:]), lines.append)
assert "fedml" in sys.modules and len(lines) == 2 and lines[1].startswith("selected round 1 of 1 to 1"), lines
for name, value in state().items():
    assert value == before[name], (name, before[name], value)
print("untouched")
"""


def test_the_process_is_left_as_it_was(tmp_path):
    config = FEDML_CONFIGS / "single_process.yaml"
    out, _, network = watched([sys.executable, "-c", IN_PROCESS, str(config), *QUICK], tmp_path)
    assert out.endswith("untouched\n") and not network
