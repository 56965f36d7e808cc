"""Training of a block of clients with each upload kept, so that a broken one can be left out.

A client whose loss, upload or private state is no longer finite is left out of the round: nothing of it reaches the
server, and it keeps the private state with which it entered (its private item vectors, which are not copied, start
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
    """A block that was trained with each upload kept.

    Attributes:
        uploads: of the clients whose round is finite.
        losses: the sum of their mean losses.
        broken: how many clients were left out.
    """

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
    """Run all local epochs of a block and write its private state back.

    Args:
        problem: the clients' side of the run.
        store: heads and routers.
        own: private item vectors, None where the backbone has none.
        program: trains the block.
        sampler: the block's samples.
        shape: names and shapes of an upload.
        round: counted from 1.
    """
    slots = sampler.slots
    state = _copy(store.checkout(slots))
    trained = program.run_separately(sampler, state, round)
    users = problem.histories.order[slots]
    sizes = problem.histories.weights[users]
    uploads = ClientUploads(shape, users, sizes, trained.keys, trained.rows, trained.layers)
    good = uploads.finite() & torch.isfinite(trained.losses) & _finite(state)
    if bool(good.all()):
        store.checkin(state, everything=True)
        return SeparateBlock(uploads, float(trained.losses.sum()), 0)
    store.checkin(_only(state, good), everything=True)
    if own is not None:
        own.forget(slots[~good])
    return SeparateBlock(uploads.only(good), float(trained.losses[good].sum()), int((~good).sum()))


def looks_large(state: BlockState) -> bool:
    """Whether private values are so large (or not finite) that a client of the block may leave the finite numbers.

    A local step cannot take a value from below this bound beyond the range of float32 within a round, short of
    absurd learning rates; so blocks below it are trained as one.
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
