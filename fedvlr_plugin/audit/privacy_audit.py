"""Audit the privacy of a row: what an honest but curious server can infer from its uplink.

The adversary follows the protocol and knows everything public: broadcasts, learning rates, item features, the cohort,
the aggregation rule. For each condition (no protection; the paper's noise; a stated epsilon) the row is trained for T
rounds with every client in every round. From what the adversary observes (`audit.observations`), three things are
inferred:

    membership   whether a client is in the sum (`audit.membership`). One test knows the client's upload, the other knows
                 all other uploads too. Result: AUC over the audited clients, half of which are not in the sum, and the
                 largest AUC that epsilon allows.
    history      which items are in a client's history (`audit.inference`), from the scores of all T rounds. Result: AUC,
                 hit@10, and hit@n with n the length of the history. Controls over the items outside the history: another
                 client's history, and random items.
    parameters   direction of the head and router weights, from the last round (`audit.inference`). Control: the head of
                 another client.

Differential privacy protects the released sum. The party that adds the noise must be trusted, or the sum must be secure:
a server that collects plain uploads and adds the noise itself sees the plain uploads. Other attacks may infer more than
these; only epsilon bounds every attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedvlr_plugin.aggregation.factory import make_rule
from fedvlr_plugin.audit import observations as observed
from fedvlr_plugin.audit.inference import BoolArray, Evidence, FloatArray, GroundTruth
from fedvlr_plugin.audit.membership import RecordingRule
from fedvlr_plugin.config import Conditions, ExecutionConfig, Privacy, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.experiment.variants import Level
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, guarantee_of

MOST_MASKED = 32
KNOWS_ONE, KNOWS_ALL = "the upload known", "all others known"


@dataclass(frozen=True)
class Observation:
    """What was inferred from one kind of observation.

    Attributes:
        figures: by name and client, see `Evidence.history_figures` and `Evidence.head_figures`.
        routers: inferred and true router weights `[G]` of each client.
    """

    figures: dict[str, dict[int, float]]
    routers: list[tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class AuditRun:
    """One condition with one seed.

    Attributes:
        condition: the protection.
        seed: of the run.
        promised: the privacy guarantee; None without noise.
        clipped: share of uploads that were cut to C, in 0..1.
        sights: what was inferred, by the name of the observation (`audit.observations`).
        tests: membership scores by test, `[n_audited]`.
        inside: `[n_audited]`, true for clients in the sum.
    """

    condition: Level
    seed: int
    promised: PrivacyGuarantee | None
    clipped: float
    sights: dict[str, Observation]
    tests: dict[str, FloatArray]
    inside: BoolArray


def trace(
    spec: RunSpec, condition: Level, data: PreparedData, most: int, say: Callable[[str], None] = print
) -> AuditRun:
    """Train a row under a condition and compute what the server can infer.

    Args:
        spec: the run, with participation 1.
        condition: the protection.
        data: the prepared data set.
        most: how many clients are audited at most, half of them members; at least 4.
        say: called with one line of text at the end.

    Raises:
        ConfigError: fewer than 4 clients to audit, participation below 1, a row that is not federated, or an epsilon
            out of reach.
    """
    spec = spec.model_copy(update={"conditions": Conditions(privacy=condition.privacy)})
    n_users, rounds = data.interactions.n_users, spec.training.rounds
    if min(most, n_users) < 4 or spec.training.participation < 1.0:
        raise ConfigError(
            f"an audit needs at least 4 clients and participation 1, got {min(most, n_users)} and "
            f"{spec.training.participation:g}; raise --users, or leave participation out"
        )
    federation = build_federation(parse_row(spec.row), spec, ExecutionConfig(), data)
    audited = observed.draw_audited(spec.seed, n_users, most)
    members = observed.members(spec.seed, audited)
    promised = guarantee_of(spec, n_users)
    gaussian = condition.privacy if promised is not None and promised.mechanism == "gaussian" else None
    recorder = RecordingRule(
        make_rule(spec, n_users), members, audited, None if gaussian is None else gaussian.clip, spec.seed
    )
    federation.rule = recorder
    own, scale = _own_observation(condition.privacy, promised)
    seen = {own: Evidence(), observed.SUM: Evidence()}
    if condition.privacy is None:
        seen[observed.MASKED] = Evidence()
    truth: GroundTruth | None = None
    for number in range(1, rounds + 1):
        broadcast = federation.server.broadcast()
        federation.round(number)
        truth = GroundTruth(federation, broadcast) if number == rounds else None
        inside = members[recorder.uploads.clients]
        users = recorder.uploads.clients[inside].tolist()
        for position in torch.nonzero(inside)[:, 0].tolist():
            user = int(recorder.uploads.clients[position])
            rows = observed.with_noise(recorder.dense(position), scale, spec.seed, number, user)
            _record(seen[own], [user], rows, truth)
        _record(seen[observed.SUM], users, recorder.released, truth)
        if observed.MASKED in seen and truth is not None:
            masked = recorder.uploads.only(inside & (torch.cumsum(inside, 0) <= MOST_MASKED))
            for user, rows in zip(
                masked.clients.tolist(), observed.masked_rows(masked, spec.seed, number), strict=True
            ):
                _record(seen[observed.MASKED], [user], rows, truth)
    if truth is None:
        raise RuntimeError("no round was run")
    say(f"{spec.row}, noise {condition.name}, seed {spec.seed}: {rounds} rounds, {int(audited.sum())} clients audited")
    observations = {
        name: Observation(
            evidence.history_figures(data.interactions, spec.seed) | evidence.head_figures(truth),
            evidence.router_pairs(truth),
        )
        for name, evidence in seen.items()
    }
    tested = torch.nonzero(audited & (recorder.lengths > 0))[:, 0]
    tests = {
        KNOWS_ONE: (recorder.knows_one[tested] / recorder.lengths[tested]).numpy(),
        KNOWS_ALL: (recorder.knows_all[tested] / recorder.lengths[tested]).numpy(),
    }
    clipped = recorder.clipped / max(recorder.taken, 1)
    return AuditRun(condition, spec.seed, promised, clipped, observations, tests, members[tested].numpy())


def _own_observation(privacy: Privacy | None, promised: PrivacyGuarantee | None) -> tuple[str, float]:
    """Return which observation there is of a single client under a condition, and the noise scale of its entries."""
    if privacy is None or promised is None:
        return observed.UPLOAD, 0.0
    if privacy.noise_scale is not None:
        return observed.NOISY, privacy.noise_scale
    return observed.OTHERS_KNOWN, (promised.noise_multiplier or 0.0) * privacy.clip


def _record(seen: Evidence, users: list[int], rows: torch.Tensor, truth: GroundTruth | None) -> None:
    """Add one round to the evidence about `users`; `truth` is given in the last round only."""
    seen.read(users, rows)
    if truth is not None:
        seen.guess(users, rows, truth)
