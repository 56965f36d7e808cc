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
    """Rank each process's held-out items and return the ranks of all users, ascending, on every process.

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
    here = np.isin(np.arange(interactions.n_users), federation.problem.clients().cpu().numpy())
    local: Ranks | None = None
    if (held[here] >= 0).any():
        local = _rank(federation, scorer, phase, mask_validation, here)
    parts = [part for part in processes.gather(local) if part is not None]
    users = np.concatenate([part.users for part in parts])
    order = np.argsort(users)
    columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts])[order] for f in dataclasses.fields(Ranks)}
    return Ranks(**columns)


def _rank(
    federation: Federation, scorer: Scorer, phase: Phase, mask_validation: bool, here: BoolArray | None = None
) -> Ranks:
    interactions = federation.data.interactions
    if here is not None:
        held = interactions.valid if phase == "valid" else interactions.test
        only = np.where(here, held, -1)
        if phase == "valid":
            interactions = dataclasses.replace(interactions, valid=only)
        else:
            interactions = dataclasses.replace(interactions, test=only)
    return rank_positives(scorer, interactions, phase, mask_validation=mask_validation, device=str(federation.device))
