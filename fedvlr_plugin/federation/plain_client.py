"""One client of the sequential engine: leaf tensors and torch optimisers of its own, and how a backbone sees it.

Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf


class PlainView:
    """`ClientView` of one client: B = 1, `items [S]`."""

    def __init__(
        self,
        client: Client,
        broadcast: dict[str, torch.Tensor],
        items: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> None:
        self.client, self.broadcast, self.items, self.weights = client, broadcast, items, weights

    @property
    def has_item(self) -> bool:
        return "views" in self.broadcast

    def private(self, name: str) -> torch.Tensor:
        return self.client.head[name][None, None]

    def item(self) -> torch.Tensor:
        rows = self.broadcast["views"][:, self.items]
        return rows[0][None] if self.weights is None else torch.einsum("g,gsd->sd", self.weights, rows)[None]

    def table(self, name: str) -> torch.Tensor:
        return self.broadcast[f"table.{name}"][self.items][None]

    def own(self) -> torch.Tensor:
        if self.client.own is None:
            raise RuntimeError("this backbone declares no private item rows")
        return self.client.own[self.items][None]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return nnf.linear(x, self.broadcast[f"layer.{name}.weight"], self.broadcast[f"layer.{name}.bias"])

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        rows = self.table(table) + self.item() if self.has_item else self.table(table)
        return self.linear(name, torch.cat([user.expand(1, rows.shape[1], -1), rows], dim=-1))

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.linear(name, torch.cat([hidden, user * rows], dim=-1))[..., 0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(1, 2))


@dataclass
class Client:
    """Everything one client keeps: head, router, item rows `[n_items, d]`, and their optimisers."""

    head: dict[str, torch.Tensor]
    router: torch.Tensor | None
    own: torch.Tensor | None
    optimizers: list[torch.optim.Optimizer]
    own_moments: tuple[torch.Tensor, torch.Tensor] | None = None
    own_steps: int = 0

    def dense(self) -> list[torch.Tensor]:
        """Leaf tensors that the torch optimisers step."""
        return [*self.head.values(), *([] if self.router is None else [self.router])]

    @torch.no_grad()
    def forget_own(self) -> None:
        """Sets the item rows back to zero, with fresh moments."""
        for tensor in (self.own, *(self.own_moments or ())):
            if tensor is not None:
                tensor.zero_()
        self.own_steps = 0


def client_state(client: Client) -> dict[str, torch.Tensor]:
    """Everything a client goes on from, as tensors by name: parameters, moments, counts of steps."""
    state = {f"head.{name}": value.detach() for name, value in client.head.items()}
    if client.router is not None:
        state["router"] = client.router.detach()
    if client.own is not None:
        state |= {"own": client.own.detach(), "own_steps": torch.tensor(client.own_steps)}
    for name, moment in zip(("own_first", "own_second"), client.own_moments or (), strict=False):
        state[name] = moment
    for number, optimizer in enumerate(client.optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{parameter}.{key}": value for key, value in values.items()}
    return {name: value.clone() for name, value in state.items()}


@torch.no_grad()
def load_client(client: Client, state: Mapping[str, torch.Tensor]) -> None:
    """Puts a state into a client of the same kind; raises `KeyError` where a tensor is missing."""
    for name, value in client.head.items():
        value.copy_(state[f"head.{name}"])
    if client.router is not None:
        client.router.copy_(state["router"])
    if client.own is not None:
        client.own.copy_(state["own"])
        client.own_steps = int(state["own_steps"])
    for name, moment in zip(("own_first", "own_second"), client.own_moments or (), strict=False):
        moment.copy_(state[name])
    for number, optimizer in enumerate(client.optimizers):
        whole = optimizer.state_dict()
        for key, value in state.items():
            if key.startswith(f"optimizer.{number}."):
                parameter, entry = key.split(".")[2:]
                whole["state"].setdefault(int(parameter), {})[entry] = value
        optimizer.load_state_dict(whole)
