"""Summarise an audit as means over clients with 95 % bootstrap intervals, and read and write its JSON file.

Nothing of a single client is stored: no history, head, router weights or user id. With several seeds, a client's figures
are first averaged over the seeds in which it was audited, and then clients are resampled. Membership scores are
resampled within each seed, members and other clients separately.
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
    """What was inferred from one kind of observation under one condition.

    Attributes:
        noise: name of the condition.
        epsilon: of the condition; None without a guarantee, or if it is infinite.
        sight: the observation, one of the names in `audit.observations`.
        clients: number of clients audited.
        figures: by the names of `Evidence.history_figures` and `Evidence.head_figures`, and `router`, the correlation
            of inferred and true router weights. A figure that cannot be computed is absent.
    """

    noise: str
    epsilon: float | None
    sight: str
    clients: int
    figures: dict[str, Estimate]


class MembershipLine(Frozen):
    """The membership tests under one condition.

    Attributes:
        noise: name of the condition.
        epsilon: of the condition; None without a guarantee, or if it is infinite.
        clients: number of clients audited, summed over seeds.
        knows_one: AUC of the test that knows the client's upload (`audit.membership`).
        knows_all: AUC of the test that knows all other uploads too.
        best: AUC of the most powerful test; None without a guarantee.
        bound: the largest AUC that epsilon allows; None without a guarantee.
        clipped: share of uploads that were cut to C, in 0..1.
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
    """A whole audit and its settings.

    Attributes:
        schema_version: of the file.
        profile: name of the profile that the runs follow.
        data_fingerprint: of the data set.
        specs: the runs, one per seed.
        most_audited: how many clients were audited at most.
        clip: the clipping norm C of the accounted noise.
        delta: of the accounted noise.
        sights: what was inferred, a line for each condition and observation.
        members: the membership tests, a line for each condition.
        environment: versions and machine.
    """

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
    """Summarise what was inferred under one condition, a line for each observation.

    Args:
        traces: the condition's runs, one per seed; at least one.
    """
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
    """Summarise the membership tests under one condition.

    Args:
        traces: the condition's runs, one per seed; at least one.
    """
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
    """Compute the mean AUC over seeds and its bootstrap interval.

    Args:
        parts: for each seed, scores `[n]` and a mask `[n]` of the clients in the sum.
        n: number of bootstrap samples.
    """
    rng, resampled = _rng(), np.zeros(n)
    for scores, inside in parts:
        groups = [scores[inside], scores[~inside]]
        drawn = np.concatenate([rng.choice(group, (n, len(group))) for group in groups], axis=1)
        ranks = rankdata(drawn, axis=1)[:, : len(groups[0])].sum(1)
        least = len(groups[0]) * (len(groups[0]) + 1) / 2
        resampled += (ranks - least) / (len(groups[0]) * len(groups[1])) / len(parts)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(mean=float(np.mean([auc(*part) for part in parts])), low=float(low), high=float(high))


def _figures(observations: Sequence[Observation]) -> dict[str, Estimate]:
    out = {}
    for name in observations[0].figures:
        by_client: dict[int, list[float]] = {}
        for observation in observations:
            for user, value in observation.figures[name].items():
                if not math.isnan(value):
                    by_client.setdefault(user, []).append(value)
        values = np.array([np.mean(by_client[user]) for user in sorted(by_client)], dtype=np.float64)
        if len(values):
            interval = mean_interval(values, _rng())
            out[name] = Estimate(mean=float(values.mean()), low=interval.low, high=interval.high)
    if observations[0].routers:
        router = _router([observation.routers for observation in observations])
        if router is not None:
            out["router"] = router
    return out


def _router(seeds: Sequence[Sequence[tuple[FloatArray, FloatArray]]], n: int = RESAMPLES) -> Estimate | None:
    """Compute the correlation of inferred and true router weights over clients; None if either does not vary.

    The mean of each seed is subtracted, so that what all clients of a seed have in common does not count.
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
    """Write an audit as JSON, atomically.

    Args:
        audit: the audit.
        path: of the file.
    """
    write_atomic(path, (audit.model_dump_json(indent=1) + "\n").encode())


def read_audit(path: Path) -> Audit:
    """Read an audit.

    Args:
        path: of the file.

    Raises:
        ResultsError: the file is missing, truncated or not an audit.
    """
    try:
        return Audit.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise ResultsError(
            f"'{path}' is not an audit that this version wrote ({error.error_count()} problems); remove it and run "
            "benchmarks/run_privacy_audit.py again"
        ) from None
