"""The processes of `fedvlr fedml up`: started with their logs, waited for, stopped; none of them outlives it.

A child looks at its parent's id and ends when that changes (`follow_parent`), so even a killed `up` leaves nobody
behind; a terminating signal to `up` itself becomes an exception, so that it stops them in order.
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
"""The server's line, from which on it goes on without a client that dies."""
Child = subprocess.Popen[bytes]


class RunFailedError(FedVLRError, RuntimeError):
    """A process of a run failed, or the run took too long."""


def follow_parent(every: float = 0.5) -> None:
    """In a child of `up`: ends this process at once when its parent is gone. Elsewhere nothing."""
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
    """SIGTERM, and SIGHUP of a closed terminal, raise SystemExit, as Ctrl-C raises KeyboardInterrupt.

    One that is ignored (`nohup`) stays so.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: two runs in one folder would overwrite each other's states.

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
    """One rank, with its log, HOME and temporary folder in `folder`, and its share of the cores."""
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
    """Returns when the server listens.

    Raises:
        RunFailedError: it ended first, or the time is up.
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
    """Asks, waits, and then does not ask."""
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
    """A rank's log file."""
    return folder / ("server.log" if rank == 0 else f"client_{rank}.log")


def tail(folder: Path, rank: int) -> str:
    """The log's last line, named."""
    log = log_of(folder, rank)
    lines = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return f"last line of '{log}': {lines[0] if lines else '(empty)'}"


def free_ports(count: int) -> list[int]:
    """Ports that are free right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
