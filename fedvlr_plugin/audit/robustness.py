"""Measure HR, NDCG and the target item's exposure of a row under attacks and robust rules.

There is one setting for each pair of attack (or none) and robust rule (or none). In each setting the row is trained with
the same seed, the best round is chosen by validation NDCG@50 over all clients, and the test split is read once.

Exposure is the share of honest clients that have the target item in their top 50 of items outside their training
history. Clients with the target in that history are not counted; at equal scores the target comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedvlr_plugin.aggregation.attacks import draw_malicious_clients, target_item
from fedvlr_plugin.config import Attack, Conditions, ExecutionConfig, Robust, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import fit

K = 50


@dataclass(frozen=True)
class Outcome:
    """The result of one setting, one row of the table.

    Attributes:
        row: the row of the specification.
        attack: kind of attack, "none" without one.
        defence: name of the robust rule, "none" without one.
        seed: of the run.
        best_round: chosen by validation, counted from 1.
        hr: test HR@50 in percent.
        ndcg: test NDCG@50 in percent.
        exposure: of the target item, in percent of the honest clients.
    """

    row: str
    attack: str
    defence: str
    seed: int
    best_round: int
    hr: float
    ndcg: float
    exposure: float

    @property
    def cells(self) -> list[str]:
        """Row, attack, defence, seed, best round, HR@50, NDCG@50 and exposure as text."""
        figures = [f"{value:.2f}" for value in (self.hr, self.ndcg, self.exposure)]
        return [self.row, self.attack, self.defence, str(self.seed), str(self.best_round), *figures]


def settings(attacks: Sequence[Attack], rules: Sequence[str], share: float) -> list[Conditions]:
    """Combine every attack (and none) with every robust rule (and none).

    Args:
        attacks: the attacks.
        rules: names of robust rules.
        share: share of malicious clients, in 0..1; it sets `trim` and `malicious` of the rules, at most 0.45.
    """
    defences: list[Robust | None] = [None]
    for rule in rules:
        defences.append(Robust.model_validate({"rule": rule, "trim": min(share, 0.45), "malicious": min(share, 0.45)}))
    return [Conditions(attack=attack, robust=robust) for attack in [None, *attacks] for robust in defences]


def exposure(federation: Federation, item: int, honest: torch.Tensor) -> float:
    """Compute the exposure of an item, as the module docstring defines it.

    Args:
        federation: the trained federation.
        item: the target item.
        honest: ids of the honest clients.

    Returns:
        Percent of the honest clients that do not have the item in training; 0 if there are none.
    """
    interactions = federation.data.interactions
    n_exposed = 0
    users = [u for u in honest.tolist() if item not in interactions.history(u)]
    for start in range(0, len(users), 256):
        part = users[start : start + 256]
        scores = federation.score(torch.tensor(part, device=federation.device)).clone()
        for position, user in enumerate(part):
            scores[position, torch.from_numpy(interactions.history(user))] = -torch.inf
        n_exposed += int(((scores > scores[:, item, None]).sum(1) < K).sum())
    return 100.0 * n_exposed / max(len(users), 1)


def measure(
    spec: RunSpec, conditions: Conditions, data: PreparedData, share: float, execution: ExecutionConfig | None = None
) -> Outcome:
    """Train and evaluate one setting.

    Args:
        spec: the run.
        conditions: attack and robust rule; they replace those of the specification.
        data: the prepared data set.
        share: share of malicious clients, in 0..1. The same clients are left out of the exposure without an attack.
        execution: device and speed settings; None for the defaults.
    """
    spec = spec.model_copy(update={"conditions": conditions})
    federation = build_federation(parse_row(spec.row), spec, execution or ExecutionConfig(), data)
    fitted = fit(federation, lambda: summary(rank_federation(federation, "valid")))
    figures = summary(rank_federation(federation, "test", spec.protocol.mask_validation_at_test))
    attack, robust = conditions.attack, conditions.robust
    counts = np.bincount(data.interactions.train_items, minlength=data.interactions.n_items)
    target = target_item(attack or Attack(kind="promotion"), torch.from_numpy(counts))
    honest = torch.nonzero(~draw_malicious_clients(spec.seed, data.interactions.n_users, share))[:, 0]
    return Outcome(
        spec.row,
        "none" if attack is None else attack.kind,
        "none" if robust is None else robust.rule,
        spec.seed,
        fitted.best_round,
        figures["hr@50"],
        figures["ndcg@50"],
        exposure(federation, target, honest),
    )


def bench(
    specs: Sequence[RunSpec],
    conditions: Sequence[Conditions],
    data: PreparedData,
    share: float,
    say: Callable[[str], None],
    execution: ExecutionConfig | None = None,
) -> list[Outcome]:
    """Train and evaluate every specification in every setting.

    Args:
        specs: the runs.
        conditions: the settings.
        data: the prepared data set.
        share: share of malicious clients, in 0..1.
        say: called with one line of text after each setting.
        execution: device and speed settings; None for the defaults.

    Returns:
        One outcome for each pair, in the order of `specs` and, within one, of `conditions`.
    """
    outcomes = []
    for spec in specs:
        for setting in conditions:
            outcomes.append(measure(spec, setting, data, share, execution))
            say(" | ".join(outcomes[-1].cells))
    return outcomes
