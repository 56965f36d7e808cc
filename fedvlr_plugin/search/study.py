"""One cell's search: an Optuna study over validation NDCG@50, shared by as many workers as there are.

The search is blind: it runs on data in which every test item has been replaced by the validation item, so no code
it calls could look at a test item if it tried. The study's name carries a hash of all that defines it: the base
specification, the data, the space, the method and the number of trials.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.declarations import Dimension
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.execution import Runner
from fedvlr_plugin.experiment.profiles import spec_with
from fedvlr_plugin.search.space import grid, point_of, settings_of
from fedvlr_plugin.search.work_queue import ERROR, Claim, Queue, Slot

Method = Literal["grid", "tpe"]
OBJECTIVE = "ndcg@50"
VERSION = 1
POLL_S = 0.5


@dataclass(frozen=True)
class StudySpec:
    """What defines a study.

    Attributes:
        base: the run that every trial changes in some settings.
        space: what is chosen.
        method: `grid` tries all points, `tpe` draws `trials` points, the base's own settings first.
        pruning: whether a trial may be given up for a poor learning curve. Off by default: small learning rates
            learn slowly and would be cut.
    """

    base: RunSpec
    space: tuple[Dimension, ...]
    method: Method = "grid"
    trials: int = 0
    pruning: bool = False

    def name(self, data_fingerprint: str) -> str:
        """`ku FedAvg+ours corrected [0123456789ab]`."""
        content = {
            "version": VERSION,
            "base": self.base.spec_hash,
            "data": data_fingerprint,
            "space": [dataclasses.asdict(dimension) for dimension in self.space],
            "method": self.method,
            "trials": self.trials if self.method == "tpe" else 0,
            "pruning": self.pruning,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.base.dataset} {self.base.row} {self.base.protocol.name} [{digest}]"

    def slots(self) -> list[Slot]:
        """The trials to do: every point of the grid, or as many free ones as there is budget for."""
        if self.method == "grid":
            points = grid(self.space)
        else:
            points = [point_of(self.space, self.base), *({} for _ in range(self.trials - 1))]
        return [Slot(number, point) for number, point in enumerate(points)]


@dataclass(frozen=True)
class Selection:
    """What a search came to. `value` is the best validation NDCG@50 in percent."""

    study: str
    point: dict[str, float]
    settings: dict[str, object]
    value: float
    tried: int
    failed: int
    pruned: int


class Study:
    """A cell's study, opened or made in a storage.

    Args:
        spec: what defines it.
        data: with its test items; they are hidden from every trial.
        storage: from `storage.open_storage`.
        runner: `experiment.run.run`.
        execution: how trials are run.
    """

    def __init__(
        self,
        spec: StudySpec,
        data: PreparedData,
        storage: RDBStorage,
        runner: Runner,
        execution: ExecutionConfig | None = None,
    ) -> None:
        self.spec, self.name = spec, spec.name(data.fingerprint)
        self._data, self._runner, self._execution = blind(data), runner, execution
        seed = int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16)
        self.queue = Queue(storage, self.name, spec.slots(), optuna.samplers.TPESampler(seed=seed), _pruner(spec))

    def step(self, on_round: Callable[[RoundRecord], None] | None = None) -> bool:
        """Do one trial if there is one to do; False if nothing is left, or others are at the rest."""
        claim = self.queue.claim()
        if claim is None:
            return False
        with claim:
            self.attempt(claim, on_round)
        return True

    def work(self, on_round: Callable[[RoundRecord], None] | None = None) -> Selection:
        """Do trials until the study is finished, waiting for other workers' last ones, and select."""
        while True:
            if self.step(on_round):
                continue
            if self.queue.finished():
                return self.selection()
            time.sleep(POLL_S)

    def selection(self) -> Selection:
        """The best point so far; ties go to the earlier slot. Raises `FedVLRError` if no trial has succeeded."""
        outcomes = self.queue.outcomes()
        complete = [(number, t) for number, t in sorted(outcomes.items()) if t.state == TrialState.COMPLETE]
        failed = [t for t in outcomes.values() if t.state == TrialState.FAIL]
        if not complete:
            why = next((t.user_attrs[ERROR] for t in failed if ERROR in t.user_attrs), "no trial was run")
            raise FedVLRError(f"the study '{self.name}' has no successful trial: {why}")
        best = max(complete, key=lambda pair: (pair[1].value or 0.0, -pair[0]))[1]
        return Selection(
            study=self.name,
            point=dict(best.params),
            settings=settings_of(self.spec.space, best.params),
            value=best.value or 0.0,
            tried=len(complete),
            failed=len(failed),
            pruned=sum(t.state == TrialState.PRUNED for t in outcomes.values()),
        )

    def trials(self) -> list[FrozenTrial]:
        """The trials that settled a slot, in the order of slots."""
        return [trial for _, trial in sorted(self.queue.outcomes().items())]

    def attempt(self, claim: Claim, on_round: Callable[[RoundRecord], None] | None = None) -> str:
        """One claimed trial; says what it came to. Only validation metrics exist here."""
        trial = self._trial(claim)
        point = {d.name: trial.suggest_float(d.name, min(d.values), max(d.values), log=True) for d in self.spec.space}
        best = [0.0]

        def report(record: RoundRecord) -> None:
            if record.valid is not None:
                best[0] = max(best[0], record.valid[OBJECTIVE])
                trial.report(record.valid[OBJECTIVE], record.round)
                if self.spec.pruning and trial.should_prune():
                    raise optuna.TrialPruned
            if on_round is not None:
                on_round(record)

        spec = spec_with(self.spec.base, settings_of(self.spec.space, point))
        trial.set_user_attr("spec_hash", spec.spec_hash)
        try:
            result = self._runner(spec, self._execution, data=self._data, on_round=report)
        except optuna.TrialPruned:
            claim.pruned(best[0])
            return f"pruned at validation NDCG@50 {best[0]:.2f}"
        except FedVLRError as error:  # it diverged: trying the same point again would not help
            claim.failed(str(error))
            return f"FAILED: {error}"
        trial.set_user_attr("best_round", result.best_round)
        trial.set_user_attr("wall_s", result.resources.wall_s)
        value = summary(result.valid)[OBJECTIVE]
        claim.done(value)
        chosen = ", ".join(f"{name} {number:.2g}" for name, number in point.items())
        return f"validation NDCG@50 {value:.2f} with {chosen}, {result.resources.wall_s:.0f} s"

    def _trial(self, claim: Claim) -> optuna.Trial:
        """The claimed trial, sampled with a generator of its own: workers must not draw the same points."""
        if self.spec.method == "tpe":
            seed = int(hashlib.sha256(f"{self.name} {claim.slot}".encode()).hexdigest()[:8], 16)
            startup = max(4, self.spec.trials // 4)
            self.queue.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        return claim.trial()


def _pruner(spec: StudySpec) -> optuna.pruners.BasePruner | None:
    """A patient median rule with a long warm-up, where pruning is asked for."""
    if not spec.pruning:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        median = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=20)
        return optuna.pruners.PatientPruner(median, patience=10)


def blind(data: PreparedData) -> PreparedData:
    """The same data with every test item replaced by the user's validation item (-1 where there is none)."""
    hidden = dataclasses.replace(data.interactions, test=data.interactions.valid.copy())
    return PreparedData(data.name, hidden, data.features, dict(data.facts))
