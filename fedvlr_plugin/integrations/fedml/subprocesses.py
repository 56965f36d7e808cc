"""Start, wait for and stop the processes of `fedvlr fedml up`; none of them outlives it.

A child exits when its parent's process id changes (`follow_parent`), so that even a killed `up` leaves no processes
behind. A terminating signal to `up` raises an exception there, so that it stops its children in order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fedvlr_plugin.errors import ConfigError, FedVLRError

PROCESS = "fedvlr_plugin.integrations.fedml.process"
LOOPBACK = "127.0.0.1"
PARENT = "FEDVLR_PARENT"
STARTED = "all clients are there"
"""The server's line after which the run continues without a client that fails."""
Child = subprocess.Popen[bytes]


class RunFailedError(FedVLRError, RuntimeError):
    """A process of a run failed, or the run took too long."""


def follow_parent(every: float = 0.5) -> None:
    """End this process when its parent has ended; do nothing in a process that `start` did not start.

    Args:
        every: seconds between checks.
    """
    named = os.environ.pop(PARENT, "")
    if not named.isdigit():
        return

    def watch() -> None:
        while os.getppid() == int(named):
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="fedvlr-parent").start()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, and on SIGHUP from a closed terminal; an ignored signal (`nohup`) stays ignored."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, leave) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: two runs in one folder would overwrite each other's states.

    Raises:
        ConfigError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another run is going on in '{folder}'; wait for its end, or give --folder") from None
        yield


def start(config: Path, folder: Path, rank: int, processes: int) -> Child:
    """Start one rank, with its log, HOME and temporary folder in `folder`, and its share of the cores.

    Args:
        config: the configuration file.
        folder: of the run.
        rank: 0 is the server.
        processes: number of ranks.
    """
    places = {"HOME": folder.resolve() / "home", "TMPDIR": folder.resolve() / "tmp"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", PROCESS, "--cf", str(config), "--rank", str(rank)]
    command += ["--role", "server" if rank == 0 else "client", "--run_id", "fedvlr"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    more = {name: str(place) for name, place in places.items()} | {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    with log_of(folder, rank).open("wb") as log:
        environment = {"OMP_NUM_THREADS": threads, **os.environ, **more}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def wait_for_port(server: Child, port: int, folder: Path, deadline: float) -> None:
    """Wait until the server listens on its port.

    Args:
        server: its process.
        port: of the server.
        folder: of the run.
        deadline: of `time.monotonic()`, in seconds.

    Raises:
        RunFailedError: the server ended, or the time is up.
    """
    while True:
        if server.poll() is not None:
            raise RunFailedError(f"the server ended before it listened; {tail(folder, 0)}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"the server did not listen in time; {tail(folder, 0)}")
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)


def stop(running: list[Child]) -> None:
    """Terminate processes, wait up to 10 s for each, and kill those that still run."""
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        try:
            process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_of(folder: Path, rank: int) -> Path:
    """Return the log file of a rank."""
    return folder / ("server.log" if rank == 0 else f"client_{rank}.log")


def tail(folder: Path, rank: int) -> str:
    """Return the last line of a rank's log, with the name of the file."""
    log = log_of(folder, rank)
    lines = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return f"last line of '{log}': {lines[0] if lines else '(empty)'}"


def free_ports(count: int) -> list[int]:
    """Find ports that are free at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
