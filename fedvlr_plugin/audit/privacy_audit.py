"""The privacy audit of a row: what its uplink tells an honest but curious server, condition by condition.

The adversary follows the protocol and knows all that is public: broadcasts, rates, item features, who was asked, the
rule. For each condition (no protection; the paper's noise; a stated epsilon) the row is trained for T rounds, every
client in every round, and three questions are asked of what `sights` says it sees:

    membership   is a client in the sum? One test knows the client's upload, one knows all the others' too (`watch`);
                 AUC over the audited clients, half of them left out. Beside it what epsilon allows (`bounds`).
    history      which items are in a client's history? Scores of all T rounds added up (`probes`): AUC, hit@10, hit@n
                 (the n_u best). Controls, among the items that are not in it: another client's history, and random items.
    parameters   the head's direction and the router's weights from the last round's upload (`recovery`). Control: the
                 head of another client.

Under differential privacy the sum is what is protected. Who adds the noise must be trusted, or the sum must be secure:
a server that collects plain uploads and adds the noise itself sees plain uploads. Better probes may find more than these;
only epsilon bounds what any of them can find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedvlr_plugin.aggregation.factory import make_rule
from fedvlr_plugin.audit import observations as sights
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
    """Figures of one sight by name and client, and guessed and true router weights; see `reader`."""

    figures: dict[str, dict[int, float]]
    routers: list[tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class AuditRun:
    """One condition with one seed.

    Attributes:
        promised: epsilon and the like, None without noise.
        clipped: share of uploads that were cut to C.
        sights: by name.
        tests: membership scores by test, `[audited]`.
        inside: who was in the sum.
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
    """Train a row under a condition and record what the server sees.

    Args:
        spec: the run, with participation 1.
        most: clients to audit at most, half of them members.
        say: takes a line when it is done.

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
    audited = sights.draw_audited(spec.seed, n_users, most)
    members = sights.members(spec.seed, audited)
    promised = guarantee_of(spec, n_users)
    gaussian = condition.privacy if promised is not None and promised.mechanism == "gaussian" else None
    watch = RecordingRule(
        make_rule(spec, n_users), members, audited, None if gaussian is None else gaussian.clip, spec.seed
    )
    federation.rule = watch
    own, scale = _own_sight(condition.privacy, promised)
    seen = {own: Evidence(), sights.SUM: Evidence()}
    if condition.privacy is None:
        seen[sights.MASKED] = Evidence()
    truth: GroundTruth | None = None
    for number in range(1, rounds + 1):
        broadcast = federation.server.broadcast()
        federation.round(number)
        truth = GroundTruth(federation, broadcast) if number == rounds else None
        inside = members[watch.uploads.clients]
        users = watch.uploads.clients[inside].tolist()
        for position in torch.nonzero(inside)[:, 0].tolist():
            user = int(watch.uploads.clients[position])
            rows = sights.with_noise(watch.dense(position), scale, spec.seed, number, user)
            _look(seen[own], [user], rows, truth)
        _look(seen[sights.SUM], users, watch.released, truth)
        if sights.MASKED in seen and truth is not None:
            some = watch.uploads.only(inside & (torch.cumsum(inside, 0) <= MOST_MASKED))
            for user, rows in zip(some.clients.tolist(), sights.masked_rows(some, spec.seed, number), strict=True):
                _look(seen[sights.MASKED], [user], rows, truth)
    if truth is None:
        raise RuntimeError("no round was run")
    say(f"{spec.row}, noise {condition.name}, seed {spec.seed}: {rounds} rounds, {int(audited.sum())} clients audited")
    found = {
        name: Observation(
            s.history_figures(data.interactions, spec.seed) | s.head_figures(truth), s.router_pairs(truth)
        )
        for name, s in seen.items()
    }
    there = torch.nonzero(audited & (watch.lengths > 0))[:, 0]
    tests = {
        KNOWS_ONE: (watch.knows_one[there] / watch.lengths[there]).numpy(),
        KNOWS_ALL: (watch.knows_all[there] / watch.lengths[there]).numpy(),
    }
    clipped = watch.clipped / max(watch.taken, 1)
    return AuditRun(condition, spec.seed, promised, clipped, found, tests, members[there].numpy())


def _own_sight(privacy: Privacy | None, promised: PrivacyGuarantee | None) -> tuple[str, float]:
    """What is seen of a single client under a condition, and the noise on its entries."""
    if privacy is None or promised is None:
        return sights.UPLOAD, 0.0
    if privacy.noise_scale is not None:
        return sights.NOISY, privacy.noise_scale
    return sights.OTHERS_KNOWN, (promised.noise_multiplier or 0.0) * privacy.clip


def _look(seen: Evidence, users: list[int], rows: torch.Tensor, truth: GroundTruth | None) -> None:
    seen.read(users, rows)
    if truth is not None:
        seen.guess(users, rows, truth)
