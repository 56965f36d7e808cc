"""Heads and routers of all clients: one flat matrix per group, by slot, with optimiser moments and step counts.

Groups are `head` (the backbone's dense private parameters, one after the other) and `router`. A block of clients
is *checked out* as tensors `[B, P]` to be changed in place and *checked in* again; where its slots are
neighbours neither copies, the tensors being views. Nothing in here is ever uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from fedvlr_plugin.backbones.base import Backbone, StateGroup
from fedvlr_plugin.engines.optimizers import LocalOptimizer, step_rows
from fedvlr_plugin.fusion.router import RouterShape
from fedvlr_plugin.rng import Stream, generator


@dataclass
class Group:
    """One private group of a block: `values [B, P]`, its moments, each client's count of steps `[B]`, the learning rate."""

    values: torch.Tensor
    moments: tuple[torch.Tensor, torch.Tensor] | None
    steps: torch.Tensor
    lr: float


@dataclass
class BlockState:
    """Checked-out private state of a block of clients."""

    slots: torch.Tensor
    head: Group
    router: Group | None


class HeadShape:
    """Names and shapes of a backbone's private dense parameters inside their flat row."""

    def __init__(self, initial: Mapping[str, torch.Tensor]) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in initial.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.n_params = sum(self.sizes)

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """`[B, P]` -> views by name, `[B, *shape]`."""
        parts = flat.split(self.sizes, dim=1)
        return {n: p.reshape(len(flat), *s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}


class ClientStore:
    """Dense private state of all clients.

    Every client starts from the same head and the same router (algorithm.md section 1).
    """

    def __init__(
        self,
        n_clients: int,
        backbone: Backbone,
        router: RouterShape | None,
        seed: int,
        optimizer: LocalOptimizer,
        rates: tuple[float, float],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        source = generator(seed, Stream.CLIENT_INIT)
        initial = backbone.initial_private(source)
        self.shape = HeadShape(initial)
        self.router_shape = router
        self.optimizer: LocalOptimizer = optimizer
        self.rates = dict(zip(("head", "router"), rates, strict=True))
        rows = {"head": torch.cat([value.reshape(-1) for value in initial.values()])}
        if router is not None:
            rows["router"] = router.initial(source, torch.float64)
        self.initial = {name: row.to(device, dtype) for name, row in rows.items()}
        self.values = {name: row.repeat(n_clients, 1) for name, row in self.initial.items()}
        self.moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if optimizer == "adam":
            self.moments = {n: (torch.zeros_like(v), torch.zeros_like(v)) for n, v in self.values.items()}
        self.steps = {n: torch.zeros(n_clients, dtype=torch.int64, device=device) for n in self.values}

    def bytes_per_client(self) -> int:
        """Bytes that one client's dense private state takes, moments included."""
        copies = 3 if self.moments else 1
        return sum(v.shape[1] * v.element_size() * copies for v in self.values.values())

    def checkout(self, slots: torch.Tensor) -> BlockState:
        """Take out the state of ascending slots, to be changed in place and handed to `checkin`."""
        groups = {}
        for name, values in self.values.items():
            moments = self.moments.get(name)
            taken = None if moments is None else (_take(moments[0], slots), _take(moments[1], slots))
            groups[name] = Group(_take(values, slots), taken, _take(self.steps[name], slots), self.rates[name])
        return BlockState(slots, groups["head"], groups.get("router"))

    def as_block(self, slots: torch.Tensor, values: Mapping[str, torch.Tensor]) -> BlockState:
        """Given values `[B, P]` by group as a block for reading: no moments, no step counts."""
        none = torch.zeros(len(slots), dtype=torch.int64, device=slots.device)
        groups = {name: Group(rows, None, none, 0.0) for name, rows in values.items()}
        return BlockState(slots, groups["head"], groups.get("router"))

    def checkin(self, block: BlockState, everything: bool = False) -> None:
        """Write a checked-out block back; with `everything` also what `checkout` gave as a view (it was copied since)."""
        for name, group in (("head", block.head), ("router", block.router)):
            if group is None:
                continue
            _put(self.steps[name], block.slots, group.steps, everything)
            _put(self.values[name], block.slots, group.values, everything)
            for kept, changed in zip(self.moments.get(name, ()), group.moments or (), strict=True):
                _put(kept, block.slots, changed, everything)

    def forget(self, groups: frozenset[StateGroup], slots: torch.Tensor) -> None:
        """Set groups of some clients back to the common start, moments included (`as_released`)."""
        for name in groups & self.values.keys():
            self.values[name][slots] = self.initial[name]
            self.steps[name][slots] = 0
            for moment in self.moments.get(name, ()):
                moment[slots] = 0.0

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        """Copies by slot: `values.*`, and with `moments` also `first.*`, `second.*` and `steps.*`."""
        return {name: tensor.clone() for name, tensor in self._tensors(moments).items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy a state in; moments and steps that it does not hold are set to zero.

        Earlier versions stored a best round's values as `dense.head` and exported ones as `head`.

        Raises:
            KeyError: a tensor is missing. RuntimeError: one is misshapen.
        """
        for name, values in self.values.items():
            stored = (key for key in (f"values.{name}", f"dense.{name}", name) if key in state)
            values.copy_(state[next(stored, f"values.{name}")])
        with_moments = any(key.startswith("steps.") for key in state)
        for name, tensor in self._tensors(moments=True).items():
            if name.startswith("values."):
                continue
            if with_moments:
                tensor.copy_(state[name])
            else:
                tensor.zero_()

    def _tensors(self, moments: bool) -> dict[str, torch.Tensor]:
        """The tensors themselves, by the names of `state`."""
        tensors = {f"values.{name}": values for name, values in self.values.items()}
        if not moments:
            return tensors
        for name, (first, second) in self.moments.items():
            tensors |= {f"first.{name}": first, f"second.{name}": second}
        return tensors | {f"steps.{name}": steps for name, steps in self.steps.items()}

    def update(self, group: Group, grad: torch.Tensor) -> None:
        """Take one local optimiser step for the first `len(grad)` clients of a group."""
        rows = len(grad)
        group.steps[:rows] += 1
        moments = None if group.moments is None else (group.moments[0][:rows], group.moments[1][:rows])
        step_rows(self.optimizer, group.values[:rows], moments, grad, group.steps[:rows], group.lr)


def _is_range(slots: torch.Tensor) -> bool:
    return len(slots) > 0 and int(slots[-1]) - int(slots[0]) + 1 == len(slots)


def _take(values: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    if _is_range(slots):
        return values[int(slots[0]) : int(slots[-1]) + 1]
    return values[slots]


def _put(values: torch.Tensor, slots: torch.Tensor, changed: torch.Tensor, everything: bool) -> None:
    if everything or not _is_range(slots):
        values[slots] = changed
