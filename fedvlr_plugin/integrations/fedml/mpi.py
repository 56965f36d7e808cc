"""`mpirun -n 3 python -m fedvlr_plugin.integrations.fedml.mpi --cf FILE`: rank 0 is the server, the others clients.

FedML reads ranks from the command line; here they are those of MPI. FedML's files go into the folder `fedml_run`.
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
    """Run one rank and return its exit status; a failure aborts all ranks, since FedML would wait forever."""
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
    """Raise `ConfigError` if the number of ranks is not that of the configuration in `--cf`."""
    words = [part for word in sys.argv for part in word.split("=", 1)]
    if "--cf" not in words[:-1]:
        return  # `init_offline` says so
    sections = read_sections(Path(words[words.index("--cf") + 1]))
    flat = {name: value for section in sections.values() for name, value in section.items()}
    needed = whole(SimpleNamespace(**flat), "worker_num", 0) + 1
    if size != needed:
        raise ConfigError(
            f"worker_num {needed - 1} needs {needed} MPI processes, and there are {size}; give mpirun -n {needed}, and let "
            "mpirun be of the MPI that mpi4py loads (`python -m mpi4py --mpi-lib-version`)"
        )


if __name__ == "__main__":
    raise SystemExit(main())
