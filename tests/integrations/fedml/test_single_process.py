"""A run inside FedML asks for no address, writes only into its folder, and leaves the process as it found it."""

import sys

import pytest
from helpers.fedml_processes import SMALL, real_fedml, watched
from helpers.paths import FEDML_CONFIGS

QUICK = [*SMALL, "comm_round=1"]

pytestmark = [pytest.mark.slow, real_fedml]


@pytest.mark.parametrize("kind", ["run", "up"])
def test_nothing_goes_out_and_nothing_is_written_elsewhere(request, kind):
    seen = request.getfixturevalue({"run": "single_run", "up": "grpc_run"}[kind])
    assert "round" in seen.out and not seen.network
    elsewhere = seen.written_elsewhere()
    assert elsewhere <= {"/dev/null"} and seen.files - elsewhere
    assert (seen.folder / "home" / ".fedml").exists(), "the hook saw nothing of what FedML always writes"


IN_PROCESS = """
import logging, multiprocessing, os, random, sys, tempfile, warnings
import numpy, torch
from pathlib import Path
from fedvlr_plugin.cli.main import app
from helpers.fedml_processes import parsed
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
run_single(Path(sys.argv[1]), Path("run"), parsed(sys.argv[2:]), lines.append)
assert "fedml" in sys.modules and len(lines) == 2 and lines[1].startswith("selected round 1 of 1 to 1"), lines
for name, value in state().items():
    assert value == before[name], (name, before[name], value)
print("untouched")
"""


def test_the_process_is_left_as_it_was(tmp_path):
    config = FEDML_CONFIGS / "single_process.yaml"
    seen = watched([sys.executable, "-c", IN_PROCESS, str(config), *QUICK], tmp_path)
    assert seen.out.endswith("untouched\n") and not seen.network
