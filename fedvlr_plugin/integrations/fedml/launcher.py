"""`fedvlr fedml up`: start, watch and stop a GRPC server and its clients on this machine.

The clients are started when the server listens on its port. All files, FedML's too (HOME and TMPDIR are set), stay in
the run's folder. The messages are unencrypted pickles, so all processes listen on 127.0.0.1 only.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedvlr_plugin.data.reading.encodings import read_text
from fedvlr_plugin.errors import ConfigError, DataError
from fedvlr_plugin.integrations.fedml.options import OURS
from fedvlr_plugin.integrations.fedml.state_files import finished_rounds
from fedvlr_plugin.integrations.fedml.subprocesses import (
    LOOPBACK,
    STARTED,
    Child,
    RunFailedError,
    alone_in,
    ended_by_signals,
    free_ports,
    log_of,
    start,
    stop,
    tail,
    wait_for_port,
)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        summary: the server's last line.
        died: ranks of the clients that failed during the run.
    """

    summary: str
    died: tuple[int, ...]


def read_sections(path: Path) -> dict[str, dict[str, object]]:
    """Read a FedML configuration: sections of options.

    Raises:
        ConfigError: the file cannot be read or is not UTF-8, is not a configuration, or has an option in two sections.
    """
    try:
        content = parse_yaml(read_text(path, f"the configuration '{path}'"), f"the configuration '{path}'")
    except DataError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"'{path}' is no FedML configuration: sections with options are needed, none of them empty")
    homes: dict[str, str] = {}
    for section, options in content.items():
        for name in options:
            if homes.setdefault(name, section) != section:
                raise ConfigError(
                    f"'{path}': the option '{name}' stands in the sections '{homes[name]}' and '{section}'; FedML would take "
                    "the last one only, so keep one of them"
                )
    return content


def parse_yaml(text: str, what: str) -> object:
    """Parse YAML; raise `ConfigError`, one line that names `what`, where it is not."""
    try:
        content: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())}") from None
    return content


def set_options(sections: dict[str, dict[str, object]], values: Mapping[str, object]) -> None:
    """Set options in the section that has them, or in the section `fedvlr_args` (FedML flattens all sections).

    Args:
        sections: of the configuration; changed in place.
        values: by option name.

    Raises:
        ConfigError: a name is unknown but similar to a known one (FedML itself accepts any name).
    """
    known = [*OURS, *(name for section in sections.values() for name in section)]
    for name, value in values.items():
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and close:
            raise ConfigError(
                f"unknown option '{name}'. Did you mean '{close[0]}'? Other options of FedML go into --cf FILE"
            )
        holders = [section for section in sections.values() if name in section] or [
            sections.setdefault("fedvlr_args", {})
        ]
        holders[0][name] = value


def prepare_run(
    config: Path, folder: Path, clients: int | None, overrides: Mapping[str, object]
) -> tuple[Path, list[int]]:
    """Write the configuration and the addresses of a run into its folder.

    With a server's checkpoint in the folder, only the remaining rounds are configured.

    Args:
        config: the configuration file.
        folder: of the run.
        clients: number of client processes; None for `worker_num` of the configuration.
        overrides: values by option name.

    Returns:
        The new configuration file, and the ports, the server's first.

    Raises:
        ConfigError: a number is missing or wrong, or all rounds are done.
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
    left = total - finished_rounds(folder)
    if left < 1:
        raise ConfigError(f"all {total} rounds of '{folder}' are done; give another folder or a larger comm_round")
    ports = free_ports(count + 1)
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
    config: Path,
    folder: Path,
    clients: int | None,
    timeout: float,
    overrides: Mapping[str, object] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Run a server and its clients to the end.

    Args:
        config: the configuration file.
        folder: of the run.
        clients: number of client processes; None for `worker_num` of the configuration.
        timeout: seconds for the whole run at most.
        overrides: values by option name.
        tell: called with the server's line of each round.

    Raises:
        ConfigError: the configuration cannot be run, or another run uses the folder.
        RunFailedError: the server failed, a client failed before training began, all clients failed, or the time is
            up. All processes are stopped then, as on Ctrl-C and SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    running: list[Child] = []
    with alone_in(folder), ended_by_signals():
        path, ports = prepare_run(config, folder, clients, overrides or {})
        try:
            running.append(start(path, folder, 0, len(ports)))
            wait_for_port(running[0], ports[0], folder, deadline)
            running += [start(path, folder, rank, len(ports)) for rank in range(1, len(ports))]
            return _watch(running, folder, deadline, tell)
        finally:
            stop(running)


def _watch(running: list[Child], folder: Path, deadline: float, tell: Callable[[str], None]) -> Ended:
    server, workers = running[0], running[1:]
    started, summary = False, ""
    with log_of(folder, 0).open(errors="replace") as log:
        part = ""
        while True:
            over = server.poll() is not None
            *lines, part = (part + log.read()).split("\n")
            started = started or STARTED in lines
            summary = next((line for line in reversed(lines) if line.startswith("rounds ")), summary)
            for line in lines:
                if line.startswith("round "):
                    tell(line)
            if over:
                break
            _check_alive(workers, started, folder)
            if time.monotonic() > deadline:
                raise RunFailedError(
                    f"the run in '{folder}' took longer than its time limit; raise --timeout or read its logs"
                )
            time.sleep(0.1)
    if server.returncode != 0:
        raise RunFailedError(f"the server failed with status {server.returncode}; {tail(folder, 0)}")
    return Ended(summary, tuple(rank for rank, worker in enumerate(workers, 1) if worker.poll() not in (None, 0)))


def _check_alive(workers: list[Child], started: bool, folder: Path) -> None:
    """Raise `RunFailedError` if a client failed before the first round, for which FedML waits, or all clients failed."""
    failed = [rank for rank, worker in enumerate(workers, 1) if worker.poll() not in (None, 0)]
    if failed and not started:
        raise RunFailedError(f"client {failed[0]} failed before training began; {tail(folder, failed[0])}")
    if len(failed) == len(workers):
        raise RunFailedError(f"every client failed; {tail(folder, 1)}")
