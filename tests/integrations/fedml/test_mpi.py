"""What `mpirun` starts, with one rank and a stand-in of MPI: ranks, folders, and a failure that ends all ranks."""

import os
import sys
import tempfile
import types

import pytest
from helpers.paths import FEDML_CONFIGS

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml import mpi, process


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A communicator whose rank is 1; the working folder, HOME and the temporary folder are under tmp_path."""
    aborted = []
    comm = types.SimpleNamespace(Get_rank=lambda: 1, Get_size=lambda: 3, Abort=aborted.append, aborted=aborted)
    package, module = types.ModuleType("mpi4py"), types.ModuleType("mpi4py.MPI")
    package.MPI, module.COMM_WORLD = module, comm
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)
    monkeypatch.setattr(sys, "argv", ["mpi"])
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


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_wrong_number_of_ranks_is_refused_in_one_line(world, monkeypatch, capsys, size):
    """One rank each is what an mpirun of another MPI than mpi4py's gives."""
    config = FEDML_CONFIGS / "cross_silo_mpi.yaml"
    monkeypatch.setattr(sys, "argv", ["mpi", "--cf", str(config)])
    world.Get_size = lambda: size
    assert mpi.main() == 1 and world.aborted == [2]
    assert f"needs 3 MPI processes, and there are {size}" in capsys.readouterr().err


def test_without_an_mpi_library_the_extras_are_named(world, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    assert mpi.main() == 2 and "fedml-mpi,openmpi" in capsys.readouterr().err
