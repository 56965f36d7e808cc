"""Runs of rows that are solved and not trained: ItemKNN, EASE, FedEASE, and the bonus for new items on any scorer.

The numbers they need (lambda, neighbours, the bonus) are chosen inside the run by validation NDCG@50, and stand in
the record as `chosen`. The test split is read once, afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field

from fedvlr_plugin.centralized.closed_form import (
    LAMBDAS,
    NEIGHBOURS,
    SHRINKAGES,
    GramMatrix,
    check_memory,
    count_pairs,
    ease_scores,
    find_neighbours,
)
from fedvlr_plugin.config import ExecutionConfig, Frozen, RunSpec, build_config
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.evaluation.choice import Choice, choose
from fedvlr_plugin.evaluation.content import FloatArray, as_scorer, content_directions, history_matrix
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.new_items import BONUSES, with_bonus
from fedvlr_plugin.evaluation.ranks import Phase, Ranks, Scorer, rank_positives
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.result import Meter, OnRound, RunResult
from fedvlr_plugin.experiment.rows import Row
from fedvlr_plugin.federation.one_shot import OneShotParams, gather

CONTENT_WEIGHTS: tuple[float, ...] = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
NOISY_LAMBDAS: tuple[float, ...] = (*LAMBDAS[::2], 3.162e4, 1e5, 3.162e5, 1e6)
"""With noise on the co-counts: small values often cannot be inverted, and the best one is larger."""
Rank = Callable[[Scorer, Phase], Ranks]


class EASEParams(Frozen):
    """The parameters of EASE; None = chosen by validation."""

    lam: float | None = Field(None, gt=0.0, description="lambda")


class ItemKNNParams(Frozen):
    """The parameters of ItemKNN; None = chosen by validation."""

    k: int | None = Field(None, ge=1, description="neighbours of an item")
    shrink: float | None = Field(None, ge=0.0, description="added to the cosine's denominator")


@dataclass(frozen=True)
class Solved:
    """A scorer with the numbers that validation chose for it."""

    scorer: Scorer
    chosen: Mapping[str, float]


def run_closed_form(row: Row, spec: RunSpec, execution: ExecutionConfig, data: PreparedData) -> RunResult:
    """Run ItemKNN or EASE, with the bonus for new items where the row asks for it.

    Raises:
        ConfigError: unknown or bad parameters, or a matrix that does not fit into the memory budget.
    """
    meter = Meter(torch.device("cpu"))
    params: dict[str, object] = dict(spec.model.params)
    rank = _ranker(spec, data.interactions)
    if row.base == "ItemKNN":
        solved = _item_knn(build_config(ItemKNNParams, params), data.interactions, rank)
    else:
        given = build_config(EASEParams, params)
        check_memory(row.name, data.interactions.n_items, execution.memory_budget)
        solved = _ease(count_pairs(data.interactions), data.interactions, rank, _given(given.lam, LAMBDAS))
    valid, test, chosen = rank_solved(row, solved, data.interactions, rank)
    return _result(spec, execution, data, valid, test, meter, chosen)


def run_one_shot(
    row: Row, spec: RunSpec, execution: ExecutionConfig, data: PreparedData, on_round: OnRound | None
) -> RunResult:
    """Run FedEASE or FedEASE+content: one round, then the choice of its numbers by validation.

    The one record of its curve has no loss, since nothing is trained (0 stands there), and says in `accounts` how many
    items were kept, how many bytes a client sent and received, and what epsilon was spent.

    Raises:
        ConfigError: parameters or conditions that do not fit. DataError: `+content` on data without item features.
    """
    meter = Meter(torch.device("cpu"))
    given: dict[str, object] = dict(spec.model.params)
    params, rank = build_config(OneShotParams, given), _ranker(spec, data.interactions)
    with_content = row.base.endswith("+content")
    side = content_directions(data.features) if with_content else None
    started = time.perf_counter()
    summed = gather(spec, data.interactions, params, execution.memory_budget, with_content)
    gathered = time.perf_counter()
    noisy = spec.conditions.privacy is not None
    lambdas = NOISY_LAMBDAS if noisy else LAMBDAS[::2] if with_content else LAMBDAS
    weights = _given(params.content_weight, CONTENT_WEIGHTS) if with_content else (0.0,)
    usable = _invertible(summed.gram, _given(params.lam, lambdas)) if noisy else _given(params.lam, lambdas)
    solved = _ease(summed.gram, data.interactions, rank, usable, side, weights)
    valid, test, chosen = rank_solved(row, solved, data.interactions, rank)
    seconds = {"uplink": gathered - started, "server": time.perf_counter() - gathered}
    record = RoundRecord(1, seconds, 0.0, summary(valid), accounts=summed.accounts)
    if on_round is not None:
        on_round(record)
    return _result(spec, execution, data, valid, test, meter, chosen, (record,), data.interactions.n_users)


def rank_solved(
    row: Row, solved: Solved, interactions: Interactions, rank: Rank
) -> tuple[Ranks, Ranks, dict[str, float]]:
    """Validation and test ranks of a scorer, the bonus for new items chosen and added where the row asks for it.

    Args:
        row: the row.
        solved: its scorer.
        interactions: the data set.
        rank: ranks of the held-out items of a phase.
    """
    scorer, chosen = solved.scorer, dict(solved.chosen)
    if row.new_items:
        bonus = choose_bonus(scorer, interactions, rank)
        scorer = with_bonus(scorer, interactions.cold_items, bonus.point["bonus"])
        chosen |= bonus.point
        chosen["points"] = chosen.get("points", 0.0) + bonus.tried
    return rank(scorer, "valid"), rank(scorer, "test"), chosen


def choose_bonus(scorer: Scorer, interactions: Interactions, rank: Rank) -> Choice:
    """The bonus for new items with the best validation NDCG@50."""
    cold = interactions.cold_items
    return choose({"bonus": BONUSES}, lambda point: rank(with_bonus(scorer, cold, point["bonus"]), "valid"))


def _ranker(spec: RunSpec, interactions: Interactions) -> Rank:
    def rank(scorer: Scorer, phase: Phase) -> Ranks:
        mask = spec.protocol.mask_validation_at_test
        return rank_positives(scorer, interactions, phase, mask_validation=mask)

    return rank


def _given(value: float | None, values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values) if value is None else (value,)


def _ease(
    gram: GramMatrix,
    interactions: Interactions,
    rank: Rank,
    lambdas: Sequence[float],
    side: FloatArray | None = None,
    weights: Sequence[float] = (0.0,),
) -> Solved:
    """EASE with lambda, and the weight of content where there is any, by validation."""
    scorer = as_scorer(ease_scores(gram, history_matrix(interactions)))

    def solve(point: Mapping[str, float]) -> None:
        gram.invert(point["lam"], side, point["content_weight"])

    def validate(point: Mapping[str, float]) -> Ranks:
        solve(point)
        return rank(scorer, "valid")

    best = choose({"content_weight": weights, "lam": lambdas}, validate)
    solve(best.point)
    chosen = dict(best.point) if side is not None else {"lam": best.point["lam"]}
    return Solved(scorer, chosen | {"points": float(best.tried)})


def _invertible(gram: GramMatrix, lambdas: tuple[float, ...]) -> tuple[float, ...]:
    """The values of lambda, ascending, from the first with which a noisy matrix can be inverted.

    Raises `FedVLRError` where the largest is too small as well.
    """
    for position, lam in enumerate(lambdas):
        try:
            gram.invert(lam)
        except FedVLRError:
            if position == len(lambdas) - 1:
                raise
        else:
            return lambdas[position:]
    return lambdas


def _item_knn(params: ItemKNNParams, interactions: Interactions, rank: Rank) -> Solved:
    """ItemKNN with neighbours and shrinkage by validation; the neighbours of one shrinkage are found once."""
    histories = history_matrix(interactions)
    neighbours, shrinkages = _given(params.k, NEIGHBOURS), _given(params.shrink, SHRINKAGES)
    tables: dict[float, Callable[[int], Scorer]] = {}

    def scorer_of(point: Mapping[str, float]) -> Scorer:
        shrinkage = point["shrink"]
        if shrinkage not in tables:
            tables.clear()  # the grid runs through one shrinkage after the other
            table = find_neighbours(interactions, int(max(neighbours)), shrinkage)
            tables[shrinkage] = lambda k: as_scorer(table.scores(histories, k))
        return tables[shrinkage](int(point["k"]))

    best = choose({"shrink": shrinkages, "k": neighbours}, lambda point: rank(scorer_of(point), "valid"))
    return Solved(scorer_of(best.point), dict(best.point) | {"points": float(best.tried)})


def _result(
    spec: RunSpec,
    execution: ExecutionConfig,
    data: PreparedData,
    valid: Ranks,
    test: Ranks,
    meter: Meter,
    chosen: Mapping[str, float],
    curve: tuple[RoundRecord, ...] = (),
    client_updates: int = 0,
) -> RunResult:
    return RunResult(
        spec=spec,
        execution=execution,
        data_name=data.name,
        interactions_fingerprint=data.interactions.fingerprint,
        data_fingerprint=data.fingerprint,
        best_round=len(curve),
        curve=curve,
        valid=valid,
        test=test,
        resources=meter.read(client_updates),
        chosen=chosen,
    )
