"""A block of clients run so that each upload can be looked at, and what is broken can be left out.

A client whose loss, upload or private state is no longer finite is left out of the round: nothing of it reaches the
server, and it keeps the private state with which it entered (its private item rows, which are not copied, start
anew).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.engines.base import LocalProblem, LocalProgram
from fedvlr_plugin.engines.client_state import BlockState, ClientStore, Group
from fedvlr_plugin.engines.private_items import PrivateItems
from fedvlr_plugin.engines.sampling import BlockSampler

LARGE = 1e9
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class SeparateBlock:
    """`uploads` of the clients that are whole, the sum of their mean losses, and how many were left out."""

    uploads: ClientUploads
    losses: float
    broken: int


def run_block_separately(
    problem: LocalProblem,
    store: ClientStore,
    own: PrivateItems | None,
    program: LocalProgram,
    sampler: BlockSampler,
    shape: UploadShape,
    round: int,
) -> SeparateBlock:
    """All local epochs of a block; private state is checked in."""
    slots = sampler.slots
    state = _copy(store.checkout(slots))
    done = program.run_separately(sampler, state, round)
    users = problem.histories.order[slots]
    sizes = problem.histories.weights[users]
    uploads = ClientUploads(shape, users, sizes, done.keys, done.rows, done.layers)
    good = uploads.finite() & torch.isfinite(done.losses) & _finite(state)
    if bool(good.all()):
        store.checkin(state, everything=True)
        return SeparateBlock(uploads, float(done.losses.sum()), 0)
    store.checkin(_only(state, good), everything=True)
    if own is not None:
        own.forget(slots[~good])
    return SeparateBlock(uploads.only(good), float(done.losses[good].sum()), int((~good).sum()))


def looks_large(state: BlockState) -> bool:
    """Whether private values are so large (or not finite) that a client of the block may leave the finite numbers.

    A local step cannot take a value from below this bound beyond the range of float32 within a round, short of
    absurd learning rates; so blocks below it need not be run apart.
    """
    groups = [state.head] if state.router is None else [state.head, state.router]
    return any(len(g.values) > 0 and not bool(g.values.abs().max() < LARGE) for g in groups)


def _finite(state: BlockState) -> torch.Tensor:
    good = torch.isfinite(state.head.values).all(1)
    return good if state.router is None else good & torch.isfinite(state.router.values).all(1)


def _copy(state: BlockState) -> BlockState:
    return _map(state, state.slots, torch.Tensor.clone)


def _only(state: BlockState, kept: torch.Tensor) -> BlockState:
    return _map(state, state.slots[kept], lambda values: values[kept])


def _map(state: BlockState, slots: torch.Tensor, change: Change) -> BlockState:
    def group(old: Group) -> Group:
        moments = None if old.moments is None else (change(old.moments[0]), change(old.moments[1]))
        return Group(change(old.values), moments, change(old.steps), old.lr)

    return BlockState(slots, group(state.head), None if state.router is None else group(state.router))
