"""One live view of a piece of work: cells, trials and runs, rounds, time left. Plain lines where the output is not a terminal.

The time left is weighted by what each run was estimated to cost, so slow rows do not mislead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.controls import label_of
from fedvlr_plugin.experiment.estimate import format_seconds
from fedvlr_plugin.experiment.record import RunRecord

LINE_EVERY_S = 15.0
TRUST, TRUST_S = 0.05, 30.0


class Progress(Protocol):
    """What an experiment tells while it works."""

    def start(self, weights: list[float]) -> None:
        """Note that work begins; `weights` are the estimated seconds of the runs, in order."""

    def cells_done(self, done: int, total: int) -> None:
        """Note how many cells of a search are finished. May be called repeatedly."""

    def run_started(self, label: str, rounds: int) -> None:
        """Note that the next trial or run begins; it has `rounds` rounds at most."""

    def round_done(self, record: RoundRecord) -> None:
        """Note that a round (or epoch) of the present run is done."""

    def run_done(self, label: str, outcome: str) -> None:
        """Note that the present run is over; `outcome` is its result in words."""

    def waiting(self, cells: int, grace_s: int) -> None:
        """Note that nothing is left to begin: other workers have, or had, the rest. May be called repeatedly.

        Args:
            cells: number of cells that they work on.
            grace_s: seconds of silence after which a worker is taken for dead.
        """

    def stop(self) -> None:
        """Note that work is over, for whatever reason. May be called twice."""


class Clock:
    """Time left, from the share of the estimated work that is done and the time that took.

    The estimate counts as if a little of the work had gone as estimated: a twentieth, half a minute at most. So a first
    round that also compiles, or reads data, does not promise hours.
    """

    def __init__(self, weights: list[float], now: Callable[[], float] = time.monotonic) -> None:
        self._weights, self._now = weights, now
        self._begin, self._done, self.index = now(), 0.0, -1

    def next(self) -> None:
        """The next run begins."""
        self.index += 1

    def finish(self) -> None:
        """The present run is over."""
        if self.index < len(self._weights):  # other workers may leave more, or less, than was planned
            self._done += self._weights[self.index]

    def left(self, share_of_run: float = 0.0) -> float:
        """Seconds left, `share_of_run` (0..1) of the present run being done."""
        running = self.index < len(self._weights) and share_of_run > 0
        done = self._done + (share_of_run * self._weights[self.index] if running else 0.0)
        rest = sum(self._weights) - done
        trusted = min(TRUST * sum(self._weights), TRUST_S)
        if done + trusted == 0:
            return 0.0
        return rest * (self._now() - self._begin + trusted) / (done + trusted)


def describe(spec: RunSpec) -> str:
    """`ml-100k FedAvg+ours, seed 0`, with what was left out (Figure 3)."""
    parts = "" if spec.model.modalities is None else f" with {', '.join(spec.model.modalities) or 'no'} contents"
    without = "" if spec.model.id_embedding else " without id"
    return f"{spec.dataset} {label_of(spec)}{parts}{without}{describe_noise(spec)}, seed {spec.seed}"


def outcome_of(record: RunRecord) -> str:
    """`HR@50 38.24, NDCG@50 17.02, best round 40 of 60, 5 s`."""
    found = f"HR@50 {record.test['hr@50']:.2f}, NDCG@50 {record.test['ndcg@50']:.2f}"
    rounds = f", best round {record.best_round} of {record.rounds}" if record.rounds else ""
    return f"{found}{rounds}, {format_seconds(record.cost.wall_s)}"


class PlainProgress:
    """Lines: one when a run starts, one when it ends, and one now and then in between."""

    def __init__(self, write: Callable[[str], None], every: float = LINE_EVERY_S) -> None:
        self._write, self._every = write, every
        self._clock, self._total, self._rounds, self._last = Clock([]), 0, 1, 0.0
        self._waiting, self._cells = False, 0

    def start(self, weights: list[float]) -> None:
        self._clock, self._total = Clock(weights), len(weights)

    def cells_done(self, done: int, total: int) -> None:
        if done > self._cells:
            self._write(f"{done} of {total} cells finished")
        self._cells = done

    def run_started(self, label: str, rounds: int) -> None:
        self._clock.next()
        self._rounds, self._last, self._waiting = rounds, time.monotonic(), False
        self._write(f"[{self._clock.index + 1}/{self._total}] {label} ...")

    def round_done(self, record: RoundRecord) -> None:
        if time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        left = format_seconds(self._clock.left(record.round / self._rounds))
        self._write(f"    round {record.round} of {self._rounds}{_score(record)}; about {left} left in all")

    def run_done(self, label: str, outcome: str) -> None:
        self._clock.finish()
        done = self._clock.index + 1
        left = f"; about {format_seconds(self._clock.left())} left" if done < self._total else ""
        self._write(f"[{done}/{self._total}] {label}: {outcome}{left}")

    def waiting(self, cells: int, grace_s: int) -> None:
        if not self._waiting:
            self._write(format_waiting(cells, grace_s))
        self._waiting = True

    def stop(self) -> None:
        return


@dataclass
class _Narrower:
    """Leave the end of each line free: the ^C that a terminal echoes there would wrap a full one."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.content, options.update_width(options.max_width - 4))


class _Bars(RichProgress):
    def get_renderable(self) -> RenderableType:
        return _Narrower(super().get_renderable())


class LiveProgress:
    """Bars on a terminal: cells of a search, all runs, the rounds of the present run; finished runs scroll by above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock, self._rounds, self._waiting = Clock([]), 1, False
        bar = 20 if console.width >= 100 else 8
        label = Column(no_wrap=True, overflow="ellipsis", max_width=max(16, console.width - bar - 41))
        self._bars = _Bars(
            TextColumn("{task.description}", table_column=label),
            BarColumn(bar_width=bar),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )
        self._cells: TaskID | None = None
        self._runs: TaskID | None = None
        self._run: TaskID | None = None

    def start(self, weights: list[float]) -> None:
        self._clock = Clock(weights)
        self._cells = self._bars.add_task("cells", total=1, note="", visible=False)
        self._runs = self._bars.add_task(
            "trials and runs", total=len(weights), note=f"ETA {format_seconds(sum(weights))}"
        )
        self._run = self._bars.add_task("", total=1, note="", visible=False)
        self._bars.start()

    def cells_done(self, done: int, total: int) -> None:
        if self._cells is not None:
            self._bars.update(self._cells, completed=done, total=total, visible=True)

    def run_started(self, label: str, rounds: int) -> None:
        self._clock.next()
        self._rounds, self._waiting = rounds, False
        if self._run is not None:
            self._bars.reset(self._run, description=label, total=rounds, note="", visible=True)

    def round_done(self, record: RoundRecord) -> None:
        if self._run is not None and self._runs is not None:
            self._bars.update(
                self._run, completed=record.round, note=_score(record).lstrip(", ").replace("validation", "valid")
            )
            eta = format_seconds(self._clock.left(record.round / self._rounds))
            self._bars.update(self._runs, note=f"ETA {eta}")

    def run_done(self, label: str, outcome: str) -> None:
        self._clock.finish()
        self._console.print(f"{label}: {outcome}", highlight=False, markup=False)
        if self._runs is not None:
            self._bars.update(self._runs, advance=1, note=f"ETA {format_seconds(self._clock.left())}")

    def waiting(self, cells: int, grace_s: int) -> None:
        if self._run is not None and not self._waiting:
            self._console.print(format_waiting(cells, grace_s), highlight=False, markup=False)
            self._bars.reset(self._run, description="waiting", total=None, note="", visible=True)
        self._waiting = True

    def stop(self) -> None:
        self._bars.stop()


def format_waiting(cells: int, grace_s: int) -> str:
    """Return a line about what is waited for, and how long it may take."""
    what = "1 cell" if cells == 1 else f"{cells} cells"
    return f"waiting for other workers in {what}; what a killed one left is taken over after {grace_s} s of silence"


def _score(record: RoundRecord) -> str:
    return "" if record.valid is None else f", validation NDCG@50 {record.valid['ndcg@50']:.2f}"


def make_progress(console: Console) -> Progress:
    """The live view on a terminal, plain lines elsewhere."""
    if console.is_terminal:
        return LiveProgress(console)
    return PlainProgress(lambda line: print(line, flush=True))


def describe_noise(spec: RunSpec) -> str:
    """What a run's specification says of noise, for a progress line: ` with ε 8`, ` with the paper's noise 0.01`."""
    wanted = spec.conditions.privacy
    if wanted is None:
        return ""
    if wanted.mechanism == "paper_noise":
        return f" with the paper's noise {wanted.noise_scale:g}"
    return f" with ε {wanted.epsilon:g}" if wanted.epsilon is not None else f" with z {wanted.noise_multiplier:g}"
