"""Checkpoints of a federation: kill it at any moment, run it again, and the result is the same to the last bit.

A checkpoint is one file (`tensor_files`) with everything that the next round depends on: shared weights and the
server's optimiser, every client's private parameters, moments and step counts, the rule's state (the accountant's
history among it), the best round so far, and the records of the rounds run. Random streams need no state: each draw
is a function of (seed, round, epoch, client). The file holds private state of all clients. It is written only where
the user asked for checkpoints, and is removed when the run is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

VERSION = 1


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        best: the best round so far, with a copy of its parameters.
        records: of all rounds that were run, in their order.
    """

    best: BestRound[dict[str, torch.Tensor]] = field(default_factory=BestRound)
    records: list[RoundRecord] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Rounds that were run."""
        return len(self.records)


class Checkpoints:
    """The checkpoint of one run.

    Args:
        path: the file.
        every: rounds between two writes, at least 1.

    Raises:
        ConfigError: `every` is below 1.
    """

    def __init__(self, path: Path, every: int) -> None:
        if every < 1:
            raise ConfigError(f"rounds between checkpoints must be at least 1, got {every}")
        self.path, self.every = path, every

    def save(self, federation: Federation, progress: Progress) -> None:
        """Write the checkpoint in one step; raises `ResultsError` when the disk refuses."""
        parts = {"now": federation.state(moments=True)}
        if progress.best.state is not None:
            parts["best"] = progress.best.state
        tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        write_tensors(self.path, tensors, _facts(federation) | {"progress": _describe(progress)})

    def load(self, federation: Federation) -> Progress:
        """Put the stored state in force and return where training stands; nothing is done where there is no file.

        Raises:
            ResultsError: the file is damaged.
            ConfigError: it is of another run.
        """
        if not self.path.exists():
            return Progress(BestRound(federation.spec.training.patience))
        tensors, facts = read_tensors(self.path)
        expected = _facts(federation)
        for name, value in expected.items():
            if facts.get(name) != value:
                raise ConfigError(
                    f"checkpoint '{self.path}' is of another run: {name} is {facts.get(name)!r}, not {value!r}; "
                    "remove it or name another"
                )
        try:
            federation.load(_part(tensors, "now."), moments=True)
            progress = _progress(facts["progress"], federation.spec.training.patience)
            progress.best.state = _part(tensors, "best.") or None
        except (KeyError, TypeError, RuntimeError) as error:
            raise ResultsError(f"checkpoint '{self.path}' does not fit this run ({error}); remove it") from None
        return progress

    def remove(self) -> None:
        """Remove the file, once the run's result is stored."""
        self.path.unlink(missing_ok=True)


def _facts(federation: Federation) -> dict[str, object]:
    """What a checkpoint and its run must agree on."""
    return {
        "version": VERSION,
        "spec": federation.spec.spec_hash,
        "data": federation.data.fingerprint,
        "engine": type(federation.engine).__name__,
    }


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _describe(progress: Progress) -> dict[str, object]:
    reports = [
        {
            "round": record.round,
            "seconds": dict(record.seconds),
            "valid": None if record.valid is None else dict(record.valid),
            "loss": record.train_loss,
            "clients": record.clients,
            "samples": record.samples,
            "left_out": dict(record.left_out),
            "accounts": dict(record.accounts),
        }
        for record in progress.records
    ]
    return {
        "done": progress.rounds,
        "best_score": progress.best.score,
        "best_round": progress.best.number,
        "waited": progress.best.waited,
        "reports": reports,
    }


def _progress(content: object, patience: int | None) -> Progress:
    """The inverse of `_describe`; the best round's parameters are tensors beside it."""
    if not isinstance(content, dict):
        raise TypeError("no progress in it")
    records = [
        RoundRecord(
            round=entry["round"],
            seconds=entry["seconds"],
            train_loss=entry["loss"],
            valid=entry["valid"],
            left_out=entry["left_out"],
            accounts=entry["accounts"],
            clients=entry["clients"],
            samples=entry["samples"],
        )
        for entry in content["reports"]
    ]
    if content["done"] != len(records):
        raise TypeError(f"{content['done']} rounds were done and {len(records)} are described")
    return Progress(BestRound(patience, content["best_round"], content["best_score"], content["waited"]), records)
