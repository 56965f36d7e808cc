"""The server's checkpoint: shared weights, optimiser, round, counts, as safetensors. Imports no FedML."""

from __future__ import annotations

from pathlib import Path

from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

FILE = "server.safetensors"
ELSEWHERE = "Give fedvlr_checkpoint a folder that you may write"


def save_server(folder: Path, server: Server, run: str, round: int, left_out: dict[str, int]) -> None:
    """Writes the file in one step; `round` is the next one, `run` the specification's hash."""
    facts = {"run": run, "round": round, "left_out": left_out}
    write_tensors(folder / FILE, server.training_state(), facts, hint=ELSEWHERE)


def load_server(folder: Path, server: Server, run: str) -> tuple[int, dict[str, int]]:
    """Puts a checkpoint in force; its round and counts, round 1 where there is none.

    Raises:
        ResultsError: the file is damaged. ConfigError: it belongs to another run.
    """
    path = folder / FILE
    if not path.exists():
        return 1, {}
    tensors, facts = read_tensors(path)
    if facts.get("run") != run:
        raise ConfigError(f"'{path}' is the checkpoint of another run; give fedvlr_checkpoint a new folder")
    try:
        server.load_training_state(tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ResultsError(f"checkpoint '{path}' does not fit this run ({error}); remove it") from None
    left_out = facts.get("left_out")
    return _round(path, facts), dict(left_out) if isinstance(left_out, dict) else {}


def finished_rounds(folder: Path) -> int:
    """Rounds that a server's checkpoint has behind it; 0 without one."""
    path = folder / FILE
    return _round(path, read_tensors(path)[1]) - 1 if path.exists() else 0


def _round(path: Path, facts: dict[str, object]) -> int:
    number = facts.get("round")
    if not isinstance(number, int):
        raise ResultsError(f"'{path}' is no server's checkpoint; remove it")
    return number
