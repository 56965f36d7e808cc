"""`mpirun -n 3 python -m fedvlr_plugin.integrations.fedml.mpi --cf FILE`: rank 0 is the server, the others clients.

FedML takes ranks from the command line; under mpirun they are MPI's. What FedML writes goes into `fedml_run` of the
working folder. Imports `process`.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

from fedvlr_plugin.errors import FedVLRError


def main() -> int:
    """One rank; a failure of one ends all, since FedML would wait for ever."""
    world = import_module("mpi4py.MPI").COMM_WORLD
    rank = world.Get_rank()
    sys.argv += ["--rank", str(rank), "--role", "server" if rank == 0 else "client", "--run_id", "fedvlr"]
    from fedvlr_plugin.integrations.fedml.host import files_in
    from fedvlr_plugin.integrations.fedml.process import main as run

    try:
        with files_in("fedml_run"):
            return run()
    except FedVLRError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        world.Abort(2)
    except Exception:
        traceback.print_exc()
        world.Abort(1)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
