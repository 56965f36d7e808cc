"""What `mpirun` starts, with one rank and a stand-in of MPI: ranks, folders, and a failure that ends all ranks."""

import os
import sys
import tempfile
import types

import pytest

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml import mpi, process


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A communicator whose rank is 1; the working folder, HOME and the temporary folder are under tmp_path."""
    aborted = []
    comm = types.SimpleNamespace(Get_rank=lambda: 1, Abort=aborted.append, aborted=aborted)
    package, module = types.ModuleType("mpi4py"), types.ModuleType("mpi4py.MPI")
    package.MPI, module.COMM_WORLD = module, comm
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)
    monkeypatch.setattr(sys, "argv", ["mpi", "--cf", "x.yaml"])
    monkeypatch.chdir(tmp_path)
    return comm


def test_a_rank_runs_as_a_client_in_the_runs_folder(world, monkeypatch, tmp_path):
    seen = {}

    def main():
        words = sys.argv
        seen["role"] = words[words.index("--rank") + 1], words[words.index("--role") + 1]
        seen["places"] = os.environ["HOME"], os.environ["TMPDIR"], tempfile.gettempdir()
        return 0

    monkeypatch.setattr(process, "main", main)
    before = os.environ.get("HOME"), os.environ.get("TMPDIR"), tempfile.tempdir
    assert mpi.main() == 0 and not world.aborted
    run = tmp_path / "fedml_run"
    assert seen == {"role": ("1", "client"), "places": (str(run / "home"), str(run / "tmp"), str(run / "tmp"))}
    assert before == (os.environ.get("HOME"), os.environ.get("TMPDIR"), tempfile.tempdir)


@pytest.mark.parametrize("problem, code", [(ConfigError("no such option"), 2), (RuntimeError("broken"), 1)])
def test_a_rank_that_fails_ends_all(world, monkeypatch, capsys, problem, code):
    def main():
        raise problem

    monkeypatch.setattr(process, "main", main)
    assert mpi.main() == 1 and world.aborted == [code]
    assert str(problem) in capsys.readouterr().err
