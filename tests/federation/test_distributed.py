"""Two processes give what one gives (float64, 1e-9), each holding only its own clients."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.paths import BENCHMARKS, HELPERS, ROOT
from helpers.two_ranks import result

from fedvlr_plugin.experiment.rows import REFERENCES

ROWS = [("FedAvg+ours", "FedAvg", "blfm"), ("FedRAP+MLP", "FedRAP", "mlp"), ("FedNCF", "FedNCF", "none")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a run with two ranks over gloo on loopback."""
    out = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(HELPERS / "two_ranks.py"), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("row, backbone, fusion", ROWS)
def test_two_ranks_equal_one(folder, row, backbone, fusion):
    one = result(row, backbone, fusion)
    for rank in (0, 1):
        two = np.load(folder / f"{row}-{rank}.npz")
        assert set(two.files) == set(one)
        for name in set(one) - {"held"}:
            assert np.allclose(one[name], two[name], atol=1e-9, rtol=0), name
    held = [int(np.load(folder / f"{row}-{rank}.npz")["held"]) for rank in (0, 1)]
    assert int(one["held"]) == 9 and held == [5, 4]


def test_the_table_runner_under_torchrun_stores_once_what_one_process_stores(tmp_path):
    """Two ranks: one set of files, written by rank 0, with the ranks of all users as one process gives them."""
    arguments = ["--profile", "smoke", "--rows", "popularity", "FCF", "FedAvg+ours", "--overwrite", "only-missing"]
    script = [str(BENCHMARKS / "run_table2.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    starts = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    tables = {}
    for name, start in starts.items():
        command = [*start, *script, "--results", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Table 2, profile smoke") == 1
        tables[name] = (tmp_path / name / "tables" / "table2-smoke-corrected.csv").read_text()
    files = {name: sorted(p.name for p in (tmp_path / name / "runs").iterdir()) for name in starts}
    assert files["one"] == files["two"] and len(files["one"]) == 2 * (
        len(REFERENCES) + 2
    )  # a record and the ranks of each
    assert tables["one"] == tables["two"]
