"""What an audit found, as means over clients with 95 % bootstrap intervals, and its JSON file.

Nothing of a single client is in here: no history, head, router weights, user id. With several seeds a client's figures are
averaged over the seeds it was in before clients are resampled; membership scores are resampled within seed, members
and others apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from scipy.stats import rankdata

from fedvlr_plugin.audit.inference import BoolArray, FloatArray, auc, correlation
from fedvlr_plugin.audit.membership import auc_bound, gaussian_auc
from fedvlr_plugin.audit.privacy_audit import KNOWS_ALL, KNOWS_ONE, AuditRun, Observation
from fedvlr_plugin.config import Frozen, RunSpec
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.significance import mean_interval
from fedvlr_plugin.experiment.environment import Environment
from fedvlr_plugin.files import read_bytes, write_atomic
from fedvlr_plugin.rng import Stream, derive

RESAMPLES = 999
BOOTSTRAP = 3


class Estimate(Frozen):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


class ObservationLine(Frozen):
    """One sight under one condition; figures by the names of `reader`, and `router`; absent where there is none."""

    noise: str
    epsilon: float | None
    sight: str
    clients: int
    figures: dict[str, Estimate]


class MembershipLine(Frozen):
    """The membership tests under one condition.

    Attributes:
        clients: audited, over all seeds.
        knows_one, knows_all: AUC of the two tests of `watch`.
        best: AUC of the best test there is, and bound: what epsilon allows; None without a promise.
        clipped: share of uploads that were cut to C.
    """

    noise: str
    epsilon: float | None
    clients: int
    knows_one: Estimate
    knows_all: Estimate
    best: float | None
    bound: float | None
    clipped: float


class Audit(Frozen):
    """A whole audit, and what it was made with. `specs`: one per seed; `delta`, `clip`: of the accounted noise."""

    schema_version: int = 1
    profile: str
    data_fingerprint: str
    specs: tuple[RunSpec, ...]
    most_audited: int
    clip: float
    delta: float | None
    sights: tuple[ObservationLine, ...]
    members: tuple[MembershipLine, ...]
    environment: Environment


def sight_lines(traces: Sequence[AuditRun]) -> list[ObservationLine]:
    """All sights of one condition's traces, one per seed."""
    first = traces[0]
    return [
        ObservationLine(
            noise=first.condition.name,
            epsilon=None if first.promised is None else first.promised.epsilon,
            sight=name,
            clients=len({user for t in traces for user in t.sights[name].figures["auc"]}),
            figures=_figures([t.sights[name] for t in traces]),
        )
        for name in first.sights
    ]


def member_line(traces: Sequence[AuditRun]) -> MembershipLine:
    """The membership tests of one condition's traces, one per seed."""
    first, promised = traces[0], traces[0].promised
    best = bound = None
    if promised is not None and promised.epsilon is not None and promised.delta is not None:
        best = gaussian_auc(promised.noise_multiplier or 0.0, promised.rounds)
        bound = auc_bound(promised.epsilon, promised.delta)
    return MembershipLine(
        noise=first.condition.name,
        epsilon=None if promised is None else promised.epsilon,
        clients=sum(len(t.inside) for t in traces),
        knows_one=auc_estimate([(t.tests[KNOWS_ONE], t.inside) for t in traces]),
        knows_all=auc_estimate([(t.tests[KNOWS_ALL], t.inside) for t in traces]),
        best=best,
        bound=bound,
        clipped=float(np.mean([t.clipped for t in traces])),
    )


def auc_estimate(parts: Sequence[tuple[FloatArray, BoolArray]], n: int = RESAMPLES) -> Estimate:
    """The mean AUC over seeds and its interval; `parts` are scores and who was in, seed by seed."""
    rng, resampled = _rng(), np.zeros(n)
    for scores, inside in parts:
        groups = [scores[inside], scores[~inside]]
        drawn = np.concatenate([rng.choice(group, (n, len(group))) for group in groups], axis=1)
        ranks = rankdata(drawn, axis=1)[:, : len(groups[0])].sum(1)
        least = len(groups[0]) * (len(groups[0]) + 1) / 2
        resampled += (ranks - least) / (len(groups[0]) * len(groups[1])) / len(parts)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(mean=float(np.mean([auc(*part) for part in parts])), low=float(low), high=float(high))


def _figures(found: Sequence[Observation]) -> dict[str, Estimate]:
    out = {}
    for name in found[0].figures:
        by_client: dict[int, list[float]] = {}
        for sight in found:
            for user, value in sight.figures[name].items():
                if not math.isnan(value):
                    by_client.setdefault(user, []).append(value)
        values = np.array([np.mean(by_client[user]) for user in sorted(by_client)], dtype=np.float64)
        if len(values):
            around = mean_interval(values, _rng())
            out[name] = Estimate(mean=float(values.mean()), low=around.low, high=around.high)
    if found[0].routers:
        router = _router([sight.routers for sight in found])
        if router is not None:
            out["router"] = router
    return out


def _router(seeds: Sequence[Sequence[tuple[FloatArray, FloatArray]]], n: int = RESAMPLES) -> Estimate | None:
    """Correlation of guessed and true router weights over the clients of a seed; None where either does not vary.

    Each seed's mean is taken away, or what all clients of a seed share would count as knowledge of one of them.
    """
    guesses, truths = (torch.from_numpy(np.concatenate([_centred(part, i) for part in seeds])) for i in (0, 1))
    mean, rng = correlation(guesses, truths), _rng()
    if math.isnan(mean):
        return None
    drawn = [correlation(guesses[i], truths[i]) for i in (rng.integers(0, len(truths), len(truths)) for _ in range(n))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(mean=mean, low=float(low), high=float(high))


def _centred(pairs: Sequence[tuple[FloatArray, FloatArray]], which: int) -> FloatArray:
    values: FloatArray = np.stack([pair[which] for pair in pairs])
    centred: FloatArray = values - values.mean(0)
    return centred


def _rng() -> np.random.Generator:
    return np.random.default_rng(derive(0, Stream.AUDIT, BOOTSTRAP))


def write_audit(audit: Audit, path: Path) -> None:
    """Write it in one step."""
    write_atomic(path, (audit.model_dump_json(indent=1) + "\n").encode())


def read_audit(path: Path) -> Audit:
    """Raise `ResultsError` for a file that is missing, cut or not an audit."""
    try:
        return Audit.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise ResultsError(
            f"'{path}' is not an audit that this version wrote ({error.error_count()} problems); remove it and run "
            "benchmarks/run_privacy_audit.py again"
        ) from None
