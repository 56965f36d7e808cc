"""Checkpoints of a federation: kill it at any moment, run it again, and the result is the same to the last bit.

A checkpoint is one file (`tensor_file`) with everything that the next round depends on: shared weights and the
server's optimiser, every client's private parameters, moments and step counts, the rule's state (the accountant's
history among it), the best round so far, and the reports of the rounds done. Random streams need no state: each draw
is a function of (seed, round, epoch, client). The file holds private state of all clients. It is written only where
the user asked for checkpoints, and is removed when the run is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedvlr_plugin.engines.base import Uplink
from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.federation.simulation import Best, Federation
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

VERSION = 1


@dataclass(frozen=True)
class RoundReport:
    """One finished round: its uplink's accounts and, when validated, the metrics."""

    round: int
    uplink: Uplink
    seconds: Mapping[str, float]
    valid: Mapping[str, float] | None


@dataclass
class Progress:
    """Where training stands: rounds done, the best one, validations without gain, reports."""

    done: int = 0
    best: Best | None = None
    best_score: float | None = None
    best_round: int = 0
    waited: int = 0
    reports: list[RoundReport] = field(default_factory=list)


class Checkpoints:
    """The checkpoint of one run.

    Args:
        path: the file. every: rounds between two writes, at least 1.
    """

    def __init__(self, path: Path, every: int) -> None:
        if every < 1:
            raise ConfigError(f"rounds between checkpoints must be at least 1, got {every}")
        self.path, self.every = path, every

    def save(self, federation: Federation, progress: Progress) -> None:
        """Writes the checkpoint in one step; raises `ResultsError` when the disk refuses."""
        parts = {"now": federation.training_state()}
        if progress.best is not None:
            parts["best"] = federation.best_state(progress.best)
        tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        write_tensors(self.path, tensors, _facts(federation) | {"progress": _describe(progress)})

    def load(self, federation: Federation) -> Progress:
        """Puts a stored state in force and says where training stands; a fresh start where there is no file.

        Raises `ResultsError` for a damaged file, `ConfigError` for one of another run.
        """
        if not self.path.exists():
            return Progress()
        tensors, facts = read_tensors(self.path)
        expected = _facts(federation)
        for name, value in expected.items():
            if facts.get(name) != value:
                raise ConfigError(
                    f"checkpoint '{self.path}' is of another run: {name} is {facts.get(name)!r}, not {value!r}; "
                    "remove it or name another"
                )
        try:
            federation.load_training_state(_part(tensors, "now."))
            progress = _progress(facts["progress"])
            best = _part(tensors, "best.")
            progress.best = federation.load_best_state(best) if best else None
        except (KeyError, TypeError, RuntimeError) as error:
            raise ResultsError(f"checkpoint '{self.path}' does not fit this run ({error}); remove it") from None
        return progress

    def remove(self) -> None:
        """Takes the file away, when the run's result is safe."""
        self.path.unlink(missing_ok=True)


def _facts(federation: Federation) -> dict[str, object]:
    """What makes a checkpoint this run's own."""
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
            "round": report.round,
            "seconds": dict(report.seconds),
            "valid": None if report.valid is None else dict(report.valid),
            "loss": report.uplink.loss,
            "clients": report.uplink.clients,
            "samples": report.uplink.samples,
            "left_out": report.uplink.left_out,
            "accounts": report.uplink.accounts,
        }
        for report in progress.reports
    ]
    return {
        "done": progress.done,
        "best_score": progress.best_score,
        "best_round": progress.best_round,
        "waited": progress.waited,
        "reports": reports,
    }


def _progress(content: object) -> Progress:
    if not isinstance(content, dict):
        raise TypeError("no progress in it")
    reports = []
    for entry in content["reports"]:
        seconds, valid = entry.pop("seconds"), entry.pop("valid")
        number, loss = entry.pop("round"), entry.pop("loss")
        uplink = Uplink({}, loss, entry["clients"], entry["samples"], dict(seconds))
        uplink.left_out, uplink.accounts = entry["left_out"], entry["accounts"]
        reports.append(RoundReport(number, uplink, seconds, valid))
    return Progress(content["done"], None, content["best_score"], content["best_round"], content["waited"], reports)
