"""Store the private state of users, one file for each, and the server's checkpoint, on disk.

A user's file holds parameters, moments and step counts before and after the last round in which the user trained. If
the server restarts from its checkpoint and repeats that round, training starts from the state before it and gives the
same upload. The server's checkpoint holds shared weights, optimiser, round and counts. All files are safetensors (no
pickle) and are written atomically.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from fedvlr_plugin.engines.base import Engine
from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

ELSEWHERE_CLIENT = "Give fedvlr_private_state_dir a folder that you may write"
State = dict[str, torch.Tensor]


class PrivateStore:
    """The files `user_<id>.safetensors` of one run.

    Args:
        folder: of the files.
        run: hash of the specification; files of other runs are refused.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        self._before: dict[int, State] = {}
        self._round_of: dict[int, int] = {}

    def enter(self, engine: Engine, users: list[int], round: int) -> None:
        """Load the states of `users` at the beginning of `round` into the engine."""
        states = _by_user(engine.state(moments=True))
        changed = False
        for user in users:
            if user in self._round_of and self._round_of[user] < round:
                self._before[user] = states.get(user, {})
                continue
            state = self._read(user, round)
            if state or user in states:
                changed = True
                states.pop(user, None)
                if state:
                    states[user] = state
            self._before[user] = state
        if changed:
            engine.load(_joined(states))

    def leave(self, engine: Engine, users: list[int], round: int) -> None:
        """Write the states of `users` at the end of `round`."""
        states = _by_user(engine.state(moments=True))
        for user in users:
            if user not in states:
                continue
            tensors = _labelled("before", self._before[user]) | _labelled("after", states[user])
            write_tensors(self._path(user), tensors, {"run": self.run, "round": round}, hint=ELSEWHERE_CLIENT)
            self._round_of[user] = round

    def _read(self, user: int, round: int) -> State:
        """Read a user's state at the beginning of `round`; empty for a user that never trained."""
        path = self._path(user)
        if not path.exists():
            return {}
        tensors, facts = read_tensors(path)
        if facts.get("run") != self.run:
            raise ConfigError(f"'{path}' is private state of another run; give fedvlr_private_state_dir a new folder")
        written = facts.get("round")
        if not isinstance(written, int):
            raise ResultsError(f"'{path}' is no user's private state; remove it")
        if written > round:
            raise ConfigError(f"'{path}' is from round {written}, later than round {round}; start in a new folder")
        prefix = "before." if written == round else "after."
        return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

    def _path(self, user: int) -> Path:
        return self.folder / f"user_{user}.safetensors"


def _labelled(when: str, state: State) -> State:
    return {f"{when}.{name}": value for name, value in state.items()}


def _by_user(state: Mapping[str, torch.Tensor]) -> dict[int, State]:
    """Split the training state of a sequential engine by user."""
    out: dict[int, State] = {}
    for key, value in state.items():
        user, _, name = key.partition(".")
        out.setdefault(int(user), {})[name] = value
    return out


def _joined(states: Mapping[int, State]) -> State:
    return {f"{user}.{name}": value for user, state in states.items() for name, value in state.items()}


FILE = "server.safetensors"
ELSEWHERE_SERVER = "Give fedvlr_checkpoint a folder that you may write"


def save_server(folder: Path, server: Server, run: str, round: int, left_out: dict[str, int]) -> None:
    """Write the server's checkpoint.

    Args:
        folder: of the checkpoint.
        server: the shared model.
        run: hash of the specification.
        round: the next round.
        left_out: number of unused uploads by reason.
    """
    facts = {"run": run, "round": round, "left_out": left_out}
    write_tensors(folder / FILE, server.state(moments=True), facts, hint=ELSEWHERE_SERVER)


def load_server(folder: Path, server: Server, run: str) -> tuple[int, dict[str, int]]:
    """Load the server's checkpoint if there is one.

    Args:
        folder: of the checkpoint.
        server: the shared model; changed in place.
        run: hash of the specification.

    Returns:
        The next round, and the number of unused uploads by reason; round 1 without a checkpoint.

    Raises:
        ResultsError: the file is damaged.
        ConfigError: it belongs to another run.
    """
    path = folder / FILE
    if not path.exists():
        return 1, {}
    tensors, facts = read_tensors(path)
    if facts.get("run") != run:
        raise ConfigError(f"'{path}' is the checkpoint of another run; give fedvlr_checkpoint a new folder")
    try:
        server.load(tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ResultsError(f"checkpoint '{path}' does not fit this run ({error}); remove it") from None
    left_out = facts.get("left_out")
    return _round(path, facts), dict(left_out) if isinstance(left_out, dict) else {}


def finished_rounds(folder: Path) -> int:
    """Return the number of finished rounds of a server's checkpoint; 0 without one."""
    path = folder / FILE
    return _round(path, read_tensors(path)[1]) - 1 if path.exists() else 0


def _round(path: Path, facts: dict[str, object]) -> int:
    number = facts.get("round")
    if not isinstance(number, int):
        raise ResultsError(f"'{path}' is no server's checkpoint; remove it")
    return number
