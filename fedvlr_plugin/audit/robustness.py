"""What an attack does to a row, and what each robust rule saves: HR, NDCG and the target item's exposure.

For each setting (honest; attacked; attacked under each rule; and what each rule costs where nobody lies) the row
is trained with the same seed, the round selected by validation NDCG@50 of all clients, and the test split read once.
Exposure is the share of honest clients, not trained on the target, in whose top 50 of untrained items it is; at equal
scores the target comes first.
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
    """One line of the table, in percent; `attack` and `defence` are names, "none" for none."""

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
        """As text: row, attack, defence, seed, best round, HR@50, NDCG@50, exposure."""
        figures = [f"{value:.2f}" for value in (self.hr, self.ndcg, self.exposure)]
        return [self.row, self.attack, self.defence, str(self.seed), str(self.best_round), *figures]


def settings(attacks: Sequence[Attack], rules: Sequence[str], share: float) -> list[Conditions]:
    """All settings of the bench: every attack (and none) under every defence (and none)."""
    defences: list[Robust | None] = [None]
    for rule in rules:
        defences.append(Robust.model_validate({"rule": rule, "trim": min(share, 0.45), "malicious": min(share, 0.45)}))
    return [Conditions(attack=attack, robust=robust) for attack in [None, *attacks] for robust in defences]


def exposure(federation: Federation, item: int, honest: torch.Tensor) -> float:
    """See the module; percent."""
    interactions = federation.data.interactions
    seen = 0
    users = [u for u in honest.tolist() if item not in interactions.history(u)]
    for start in range(0, len(users), 256):
        part = users[start : start + 256]
        scores = federation.score(torch.tensor(part, device=federation.device)).clone()
        for position, user in enumerate(part):
            scores[position, torch.from_numpy(interactions.history(user))] = -torch.inf
        seen += int(((scores > scores[:, item, None]).sum(1) < K).sum())
    return 100.0 * seen / max(len(users), 1)


def measure(
    spec: RunSpec, conditions: Conditions, data: PreparedData, share: float, execution: ExecutionConfig | None = None
) -> Outcome:
    """Train and evaluate one setting; `share` of liars is left out of the exposure in honest settings too."""
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
    """All settings of all specifications, a line of progress each."""
    outcomes = []
    for spec in specs:
        for setting in conditions:
            outcomes.append(measure(spec, setting, data, share, execution))
            say(" | ".join(outcomes[-1].cells))
    return outcomes
