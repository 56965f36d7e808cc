"""`mpirun -n 3 python -m fedvlr_plugin.integrations.fedml.mpi --cf FILE`: rank 0 is the server, the others clients.

FedML takes ranks from the command line; under mpirun they are MPI's. What FedML writes goes into `fedml_run` of the
working folder.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from fedvlr_plugin.errors import ConfigError, FedVLRError, missing_extra
from fedvlr_plugin.integrations.fedml.launcher import read_sections
from fedvlr_plugin.integrations.fedml.options import whole


def main() -> int:
    """One rank; a failure of one ends all, since FedML would wait for ever."""
    try:
        world = import_module("mpi4py.MPI").COMM_WORLD
    except (ImportError, RuntimeError):  # mpi4py, or the MPI library that it loads
        print(f"error: {missing_extra('mpi4py with an MPI library', 'fedml-mpi,openmpi', 'MPI')}", file=sys.stderr)
        return 2
    rank = world.Get_rank()
    sys.argv += ["--rank", str(rank), "--role", "server" if rank == 0 else "client", "--run_id", "fedvlr"]
    from fedvlr_plugin.integrations.fedml.process import main as run
    from fedvlr_plugin.integrations.fedml.runtime import files_in

    try:
        _check_size(int(world.Get_size()))
        with files_in("fedml_run"):
            return run()
    except FedVLRError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        world.Abort(2)
    except Exception:
        traceback.print_exc()
        world.Abort(1)
    return 1


def _check_size(size: int) -> None:
    """Before FedML's own assertion: as many ranks as the configuration of `--cf` asks for."""
    words = [part for word in sys.argv for part in word.split("=", 1)]
    if "--cf" not in words[:-1]:
        return  # `init_offline` says so
    sections = read_sections(Path(words[words.index("--cf") + 1]))
    flat = {name: value for section in sections.values() for name, value in section.items()}
    wanted = whole(SimpleNamespace(**flat), "worker_num", 0) + 1
    if size != wanted:
        raise ConfigError(
            f"worker_num {wanted - 1} needs {wanted} MPI processes, and there are {size}; give mpirun -n {wanted}, and let "
            "mpirun be of the MPI that mpi4py loads (`python -m mpi4py --mpi-lib-version`)"
        )


if __name__ == "__main__":
    raise SystemExit(main())
