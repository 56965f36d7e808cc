"""The batched engine's workers: a local program each, their shares of a round's blocks, and the sum of their uplinks.

Backbones with a linear head run in closed form (`folded`, with private item rows `folded_own`); all others run through
autograd over padded gathers (`gathered`). Imports these, `apart`, `clients`, `crew`, `own_rows`, `samples`, `setup`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch

from fedvlr_plugin.backbones.base import Backbone
from fedvlr_plugin.federation.apart import looks_large
from fedvlr_plugin.federation.clients import ClientStore
from fedvlr_plugin.federation.crew import Crew, share_out
from fedvlr_plugin.federation.folded import FoldedProgram
from fedvlr_plugin.federation.folded_own import FoldedOwnProgram
from fedvlr_plugin.federation.folded_own_compiled import CompiledOwnProgram
from fedvlr_plugin.federation.gathered import GatheredProgram
from fedvlr_plugin.federation.loops import compiled_on
from fedvlr_plugin.federation.own_rows import OwnRows
from fedvlr_plugin.federation.samples import BlockSampler
from fedvlr_plugin.federation.setup import LocalProblem

SUMS_BYTES = 2**30
Program = FoldedProgram | GatheredProgram
Block = tuple[torch.Tensor, BlockSampler]


@dataclass
class Done:
    """What is done: the sum of the clients' mean losses, their number, and blocks that are left to be run apart."""

    losses: float = 0.0
    clients: int = 0
    large: list[Block] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Takes another worker's part in."""
        self.losses += other.losses
        self.clients += other.clients
        self.large += other.large


class Workers:
    """As many programs as blocks run side by side.

    Attributes:
        kind: `folded`, `folded_own`, `compiled_own` or `gathered`.
    """

    def __init__(self, problem: LocalProblem, store: ClientStore, own: OwnRows | None) -> None:
        self.problem, self.store, self.own = problem, store, own
        self.kind = "gathered"
        if _folds(problem.backbone) and not (own is not None and problem.pairs):
            compiled = compiled_on(problem.device) and _has_slopes(problem.backbone, "penalty_push")
            self.kind = "folded" if own is None else "compiled_own" if compiled else "folded_own"
        self.programs = [self._program()]
        self.busy = self.programs
        self.crew = Crew(problem.device)

    @property
    def first(self) -> Program:
        """The program that scores, and that runs blocks apart."""
        return self.programs[0]

    def prepare(self, blocks: list[Block], broadcast: dict[str, torch.Tensor], together: bool) -> list[list[Block]]:
        """Takes a round's broadcast in; returns each worker's blocks, which are all the first one's unless `together`."""
        teams = [list(range(len(blocks)))]
        if together and blocks:
            received = sum(value.numel() * value.element_size() for value in broadcast.values())
            workers = min(self.crew.workers(), max(1, SUMS_BYTES // max(1, 2 * received)))
            teams = share_out([self._cost(sampler) for _, sampler in blocks], workers)
        while len(self.programs) < len(teams):
            self.programs.append(self._program())
        self.busy = self.programs[: len(teams)]
        for program in self.busy:
            program.seconds = dict.fromkeys(program.seconds, 0.0)
            program.prepare(broadcast)
        return [[blocks[i] for i in team] for team in teams]

    def run(self, shares: list[list[Block]], alpha: torch.Tensor, round: int) -> Done:
        """Trains all blocks but those with large private values, which are handed back; `alpha` by slot."""
        pairs = zip(self.busy, shares, strict=True)
        done = Done()
        for part in self.crew.run([partial(self._run, program, share, alpha, round) for program, share in pairs]):
            done.add(part)
        return done

    def collect(self) -> dict[str, torch.Tensor]:
        """The summed uplink of all workers."""
        sums = self.busy[0].collect()
        for program in self.busy[1:]:
            sums = {name: value + sums[name] for name, value in program.collect().items()}
        return sums

    def seconds(self) -> dict[str, float]:
        """Seconds by phase since `prepare`, the mean over the workers."""
        names = self.busy[0].seconds
        return {name: sum(program.seconds[name] for program in self.busy) / len(self.busy) for name in names}

    def _run(self, program: Program, blocks: list[Block], alpha: torch.Tensor, round: int) -> Done:
        done = Done()
        for block, sampler in blocks:
            state = self.store.checkout(block)
            if looks_large(state):
                done.large.append((block, sampler))
                continue
            done.losses += float(program.run(sampler, state, alpha[block], round).sum())
            self.store.checkin(state)
            done.clients += len(block)
        return done

    def _cost(self, sampler: BlockSampler) -> float:
        """About how long a block takes, in samples of the only step of an epoch (measured)."""
        batches = sampler.batches
        cost = sampler.n_samples + 0.55 * batches.shuffled_samples
        if self.kind == "folded":
            steps = sum(cut.clients for cut in batches.cuts)
            cost += 0.11 * self.problem.fusion.n_views * steps * self.problem.histories.n_items
        return cost

    def _program(self) -> Program:
        if self.kind == "folded":
            return FoldedProgram(self.problem, self.store)
        if self.own is not None and self.kind != "gathered":
            kind = CompiledOwnProgram if self.kind == "compiled_own" else FoldedOwnProgram
            return kind(self.problem, self.store, self.own)
        return GatheredProgram(self.problem, self.store, self.own)


def _folds(backbone: Backbone) -> bool:
    """Whether the closed form is all there is to it: a linear score, and its penalty's slopes."""
    return backbone.linear and _has_slopes(backbone, "penalty_slopes")


def _has_slopes(backbone: Backbone, method: str) -> bool:
    """Whether there is no penalty, or whoever wrote it, or a heir of theirs, has written `method` for it too."""

    def writer(name: str) -> type:
        return next(kind for kind in type(backbone).__mro__ if name in vars(kind))

    return not backbone.has_penalty or issubclass(writer(method), writer("penalty"))
