"""The server's checkpoint file: shared weights, optimiser, round, counts. Imports no FedML."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.files import write_atomic

FILE = "server.pt"


def save_server(folder: Path, server: Server, run: str, round: int, left_out: dict[str, int]) -> None:
    """Writes `server.pt` in one step; `round` is the next one, `run` the specification's hash."""
    buffer = io.BytesIO()
    model, optimizer = server.model.state_dict(), server.optimizer.state_dict()
    state = {"run": run, "round": round, "model": model, "optimizer": optimizer, "left_out": left_out}
    torch.save(state, buffer)
    write_atomic(folder / FILE, buffer.getvalue())


def load_server(folder: Path, server: Server, run: str) -> tuple[int, dict[str, int]]:
    """Puts a checkpoint in force; its round and counts, round 1 where there is none."""
    path = folder / FILE
    if not path.exists():
        return 1, {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["run"] != run:
        raise ConfigError(f"'{path}' is the checkpoint of another run; give fedvlr_checkpoint a new folder")
    server.model.load_state_dict(state["model"])
    server.optimizer.load_state_dict(state["optimizer"])
    server.refresh()
    return int(state["round"]), dict(state["left_out"])


def finished_rounds(folder: Path) -> int:
    """Rounds that a server's checkpoint has behind it; 0 without one."""
    path = folder / FILE
    return int(torch.load(path, map_location="cpu", weights_only=True)["round"]) - 1 if path.exists() else 0
