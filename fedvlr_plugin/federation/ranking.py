"""Ranks of a federation's held-out items, over all of its processes."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedvlr_plugin.data.interactions import BoolArray
from fedvlr_plugin.evaluation.ranks import Phase, Ranks, Scorer, rank_positives
from fedvlr_plugin.federation.simulation import Federation


def rank_federation(
    federation: Federation, phase: Phase, mask_validation: bool = True, scorer: Scorer | None = None
) -> Ranks:
    """Every process ranks its own clients' items; all of them get the ranks of everybody, users ascending.

    Args:
        federation: the trained clients.
        phase: whose held-out items.
        mask_validation: whether validation items are no candidates at test.
        scorer: scores to rank instead of the federation's own, e.g. its scores with something added.
    """
    scorer = scorer or federation.score
    interactions, processes = federation.data.interactions, federation.processes
    if processes.size == 1:
        return _rank(federation, scorer, phase, mask_validation)
    held = interactions.valid if phase == "valid" else interactions.test
    mine = np.isin(np.arange(interactions.n_users), federation.problem.clients().cpu().numpy())
    own = None
    if (held[mine] >= 0).any():
        own = _rank(federation, scorer, phase, mask_validation, mine)
    parts = [part for part in processes.gather(own) if part is not None]
    users = np.concatenate([part.users for part in parts])
    order = np.argsort(users)
    columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts])[order] for f in dataclasses.fields(Ranks)}
    return Ranks(**columns)


def _rank(
    federation: Federation, scorer: Scorer, phase: Phase, mask_validation: bool, mine: BoolArray | None = None
) -> Ranks:
    interactions = federation.data.interactions
    if mine is not None:
        held = interactions.valid if phase == "valid" else interactions.test
        only = np.where(mine, held, -1)
        if phase == "valid":
            interactions = dataclasses.replace(interactions, valid=only)
        else:
            interactions = dataclasses.replace(interactions, test=only)
    return rank_positives(scorer, interactions, phase, mask_validation=mask_validation, device=str(federation.device))
