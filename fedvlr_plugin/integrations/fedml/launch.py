"""`fedvlr fedml up`: a GRPC server and its clients on this machine, started, watched and ended as one.

The server goes first and is waited for at its port. All files, FedML's own included (HOME and TMPDIR are set), stay in the run's
folder. The messages are pickles over an open channel, so everything listens on 127.0.0.1 only. Imports no FedML.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedvlr_plugin.errors import ConfigError, FedVLRError

PROCESS = "fedvlr_plugin.integrations.fedml.process"
LOOPBACK = "127.0.0.1"


class RunFailedError(FedVLRError, RuntimeError):
    """A process of a run failed, or the run took too long."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: the server's last line, and clients that died on the way."""

    summary: str
    died: tuple[int, ...]


def read_sections(path: Path) -> dict[str, dict[str, object]]:
    """A FedML YAML: sections of options."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration '{path}': {error}") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"'{path}' is no FedML configuration: sections with options are needed, none of them empty")
    return content


def set_options(sections: dict[str, dict[str, object]], values: Mapping[str, object]) -> None:
    """Sets options where they stand, or in a section of ours (FedML flattens all sections)."""
    for name, value in values.items():
        holders = [section for section in sections.values() if name in section] or [
            sections.setdefault("fedvlr_args", {})
        ]
        holders[0][name] = value


def prepare_run(
    config: Path, folder: Path, clients: int | None, overrides: Mapping[str, object]
) -> tuple[Path, list[int]]:
    """Writes the run's configuration and addresses into its folder; returns the file and the ports, server first.

    A server's checkpoint in the folder is gone on from: only the rounds that are left are asked for.
    """
    sections = read_sections(config)
    flat = {name: value for section in sections.values() for name, value in section.items()} | dict(overrides)
    count = clients or flat.get("worker_num")
    total = flat.get("fedvlr_rounds") or flat.get("comm_round")
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"clients: a positive number is needed, got {count!r}; give --clients 2")
    if not isinstance(total, int) or total < 1:
        raise ConfigError(f"comm_round: a positive number is needed, got {total!r}")
    folder.mkdir(parents=True, exist_ok=True)
    left = total - _finished(folder)
    if left < 1:
        raise ConfigError(f"all {total} rounds of '{folder}' are done; give another folder or a larger comm_round")
    ports = _free_ports(count + 1)
    addresses = folder / "grpc_ipconfig.csv"
    lines = [f"{rank},{rank},{LOOPBACK},{port}" for rank, port in enumerate(ports)]
    addresses.write_text("\n".join(["eid,rank,grpc_server_ip,grpc_server_port", *lines]) + "\n")
    set_options(
        sections,
        dict(overrides)
        | {
            "worker_num": count,
            "client_num_in_total": count,
            "client_num_per_round": count,
            "comm_round": left,
            "fedvlr_rounds": total,
            "grpc_ipconfig_path": str(addresses.resolve()),
            "fedvlr_checkpoint": str(folder.resolve()),
            "fedvlr_private_state_dir": str((folder / "private").resolve()),
        },
    )
    path = folder / "fedml_config.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path, ports


def up(
    config: Path, folder: Path, clients: int | None, timeout: float, overrides: Mapping[str, object] | None = None
) -> Ended:
    """Runs a server and its clients to the end.

    Raises:
        RunFailedError: the server failed, no client was left, or `timeout` seconds have passed; all are stopped then.
    """
    path, ports = prepare_run(config, folder, clients, overrides or {})
    deadline = time.monotonic() + timeout
    running: list[subprocess.Popen[bytes]] = []
    try:
        server = _start(path, folder, 0)
        running.append(server)
        _wait_for_port(server, ports[0], folder, deadline)
        running += [_start(path, folder, rank) for rank in range(1, len(ports))]
        return _watch(running, folder, deadline)
    finally:
        _stop(running)


def _watch(running: list[subprocess.Popen[bytes]], folder: Path, deadline: float) -> Ended:
    server, workers = running[0], running[1:]
    while server.poll() is None:
        if time.monotonic() > deadline:
            raise RunFailedError(
                f"the run in '{folder}' took longer than its time limit; raise --timeout or read its logs"
            )
        if all(worker.poll() not in (None, 0) for worker in workers):
            raise RunFailedError(f"every client failed; {_tail(folder, 1)}")
        time.sleep(0.1)
    died = tuple(rank for rank, worker in enumerate(workers, 1) if worker.poll() not in (None, 0))
    if server.returncode != 0:
        raise RunFailedError(f"the server failed with status {server.returncode}; {_tail(folder, 0)}")
    lines = (folder / "server.log").read_text().splitlines()
    summary = next((line for line in reversed(lines) if line.startswith("rounds ")), "")
    return Ended(summary, died)


def _start(config: Path, folder: Path, rank: int) -> subprocess.Popen[bytes]:
    role = "server" if rank == 0 else "client"
    places = {"HOME": folder.resolve() / "home", "TMPDIR": folder.resolve() / "tmp"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", PROCESS, "--cf", str(config), "--rank", str(rank), "--role", role]
    command += ["--run_id", "fedvlr"]
    with _log(folder, rank).open("wb") as log:
        environment = {**os.environ, **{name: str(place) for name, place in places.items()}, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _wait_for_port(server: subprocess.Popen[bytes], port: int, folder: Path, deadline: float) -> None:
    while True:
        if server.poll() is not None:
            raise RunFailedError(f"the server ended before it listened; {_tail(folder, 0)}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"the server did not listen in time; {_tail(folder, 0)}")
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
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


def _log(folder: Path, rank: int) -> Path:
    return folder / ("server.log" if rank == 0 else f"client_{rank}.log")


def _tail(folder: Path, rank: int) -> str:
    log = _log(folder, rank)
    lines = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return f"last line of '{log}': {lines[0] if lines else '(empty)'}"


def _free_ports(count: int) -> list[int]:
    """Ports that are free right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _finished(folder: Path) -> int:
    from fedvlr_plugin.integrations.fedml.checkpoint import finished_rounds

    return finished_rounds(folder)
