"""The one contract: a backbone says what is learned; an engine says how it is executed.

A backbone declares its private dense parameters, its private item rows, its shared item tables and layers, and
writes its score once, against a `ClientView`. The same object runs under the sequential engine (one client,
B = 1), the batched engine (B clients as one tensor program), evaluation (S = all items) and the FedML pair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch

from fedvlr_plugin.config import Frozen, ModelConfig
from fedvlr_plugin.declarations import Dimension, ProfileRule, SecondsPerSample
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.views import Fusion, FusionSettings
from fedvlr_plugin.registry import Registry


class ClientView(Protocol):
    """What a backbone sees of a block of B clients with S (padded) items each.

    Shapes broadcast: the engine may return 1 in place of B where all clients share a value.
    """

    @property
    def has_item(self) -> bool:
        """Whether the row broadcasts item views at all (the vanilla FedNCF does not)."""

    def private(self, name: str) -> torch.Tensor:
        """Private dense parameter of each client, `[B, 1, *shape]`."""

    def item(self) -> torch.Tensor:
        """The (fused) item vector e_i: D_i, the one view, or the client's mixture of views, `[B, S, width]`."""

    def table(self, name: str) -> torch.Tensor:
        """Rows of a shared item table that is broadcast as it is, `[B, S, d]`."""

    def own(self) -> torch.Tensor:
        """The client's private item rows, `[B, S, d]`."""

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """A shared, broadcast linear layer applied to `[B, S, n_in]`."""

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        """A shared layer applied to [user ; row], `[B, S, n_out]`.

        `user [B, 1, k]`; the row is that of a shared table, plus e_i where the row broadcasts item views. An engine may
        take the two parts apart, and the second once for all clients; the pair is named in `Backbone.joins`.
        """

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """A shared layer of one output applied to [hidden ; user * rows], `[B, S]`; `user [B, 1, d]`."""

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the real (unpadded) items and the last axis, `[B, S, k] -> [B]`."""


class BackboneParams(Frozen):
    """Base of a backbone's own hyper-parameters: frozen, unknown keys refused."""


class Slopes(NamedTuple):
    """A penalty entry by entry: its sum over the width `[D]`, and its derivatives `[D, d]` by e_i and by the own row."""

    value: torch.Tensor
    item: torch.Tensor
    own: torch.Tensor


class Push(NamedTuple):
    """Constants of the penalty mu |e| - lambda min((P - e)^2, edge^2) of an entry of e_i and of the own row P."""

    mu: float
    lam: float
    edge: float


PrivateItemsKind = Literal["none", "persistent", "fresh"]
StateGroup = Literal["head", "router", "own"]


class Backbone(ABC):
    """Base of all backbones.

    Class attributes:
        name: as in the tables.
        Params: the frozen class of its own hyper-parameters.
        fusions: the variants it supports.
        client_weight: alpha_u, `"samples"` (n_u over the cohort's sum) or `"equal"` (1 / cohort size).
        linear: true when the score is exactly `theta . e_i + b` with private `theta`, `b`, or, with private item
            rows, `theta . (e_i + own_i) + b`; lets the batched engine use the closed form of section 11. With a
            penalty `penalty_slopes` must then give its derivatives.
        own_rows: private item rows: none, kept for ever, or fresh (zero, moments too) at each participation.
        needs_id_views: whether the vanilla form broadcasts the ID table as its one view.
        has_penalty: whether `penalty` gives anything.
        forgets: the state that the released code loses every round (section 8), under
            `keep_private_state: false`.
        id_only: whether the vanilla row learns from item ids alone, so that its results do not depend on features.
        new_items_row: whether tables show the vanilla row with the bonus for new items, too.
        search: dimensions of a search beyond the learning rates.
        profile_settings: the backbone's settings by profile, over what the profile gives to all rows.
        profile_search: how profiles search the backbone's rows.
        seconds_per_sample: for estimates of cost; the default is the rate of autograd.
    """

    name: ClassVar[str]
    Params: ClassVar[type[BackboneParams]] = BackboneParams
    fusions: ClassVar[frozenset[Fusion]] = frozenset({"none", "mlp", "blfm"})
    client_weight: ClassVar[Literal["samples", "equal"]] = "equal"
    linear: ClassVar[bool] = False
    own_rows: ClassVar[PrivateItemsKind] = "none"
    needs_id_views: ClassVar[bool] = True
    has_penalty: ClassVar[bool] = False
    forgets: ClassVar[frozenset[StateGroup]] = frozenset({"head", "router", "own"})
    id_only: ClassVar[bool] = True
    new_items_row: ClassVar[bool] = False
    search: ClassVar[tuple[Dimension, ...]] = ()
    profile_settings: ClassVar[tuple[ProfileRule, ...]] = ()
    profile_search: ClassVar[tuple[ProfileRule, ...]] = ()
    seconds_per_sample: ClassVar[SecondsPerSample] = SecondsPerSample(8.0e-7, 9.0e-7, 2.0e-6)

    def __init__(self, params: BackboneParams, dim: int, width: int) -> None:
        """`dim` is d; `width` the width of e_i (2d under the naive VBPR fusion)."""
        self.params = params
        self.dim = dim
        self.width = width

    @classmethod
    def paper_parameters(cls, fusion: Fusion, users: int, items: int, width: int) -> int | None:
        """Count the parameters of one client as the paper's Table 3 does.

        Args:
            fusion: the fusion of the row.
            users: number of users of the data set.
            items: number of items.
            width: d; the paper has 64.

        Returns:
            The number of parameters; None for a backbone or fusion that the paper does not have.
        """
        return None

    @classmethod
    def paper_width(cls, fusion: Fusion, width: int) -> int:
        """Return the width under which Table 3 writes the form of `paper_parameters`; by default `width` itself."""
        return width

    @abstractmethod
    def initial_private(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Initial private dense parameters by name; every client starts from them (section 1)."""

    def item_tables(self) -> tuple[str, ...]:
        """Names of shared item tables `[n_items, d]` that are broadcast as they are."""
        return ()

    def shared_layers(self) -> Mapping[str, tuple[int, int]]:
        """Shared linear layers by name: (n_in, n_out)."""
        return {}

    def joins(self) -> Mapping[str, str]:
        """The shared layers that `logits` applies through `ClientView.joined`, each with its one table."""
        return {}

    @abstractmethod
    def logits(self, x: ClientView) -> torch.Tensor:
        """Scores before the sigmoid, `[B, S]`."""

    def penalty(self, x: ClientView, round: int) -> torch.Tensor | None:
        """Regulariser of each client over the distinct items of its batch, `[B]`, or None. Rounds count from 1."""
        return None

    def penalty_slopes(self, item: torch.Tensor, own: torch.Tensor, round: int) -> Slopes | None:
        """The same in closed form, where it is a mean over items and width of a function of e_i and the own row.

        `item`, `own`: `[D, d]`, one row per client and distinct item. None: autograd is to be used.
        """
        return None

    def penalty_push(self, round: int) -> Push | None:
        """The constants of the same, where it has that form; lets the compiled loops do it. None: they leave it alone."""
        return None


BACKBONES: Registry[type[Backbone]] = Registry("backbone", "fedvlr_plugin.backbones")


ROUTER_PARAMETERS = 12_547
"""P of the router at three views, d = 64 and 64 hidden units (algorithm.md section 4); Table 3 adds it at any width."""


def paper_tables(fusion: Fusion, items: int, width: int, own_tables: int = 0) -> int | None:
    """Count tables `[items, width]` and the router as Table 3 does for the linear backbones.

    Args:
        fusion: one table without fusion, three (two modalities and the ID table) with "+MLP" and "+ours".
        items: number of items.
        width: d.
        own_tables: private item tables beside them.

    Returns:
        The number of parameters; None for the fusion "vbpr", which has a form of its own.
    """
    tables = {"none": 1, "mlp": 3, "blfm": 3}
    if fusion not in tables:
        return None
    return (tables[fusion] + own_tables) * items * width + (ROUTER_PARAMETERS if fusion == "blfm" else 0)


def linear_head(width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The head theta [width], b [1] of the linear backbones, theta uniform in +-1/sqrt(width), b zero."""
    bound = width**-0.5
    theta = torch.empty(width, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
    return {"theta": theta, "b": torch.zeros(1, dtype=torch.float64)}


def make_backbone(name: str, fusion: FusionSettings, model: ModelConfig) -> Backbone:
    """The backbone called `name` with its own parameters; raises `ConfigError` on unknown keys or fusions."""
    from fedvlr_plugin.config import build_config

    kind = BACKBONES.get(name)
    if fusion.kind not in kind.fusions:
        allowed = ", ".join(sorted(kind.fusions))
        raise ConfigError(f"backbone '{name}' does not support the fusion '{fusion.kind}'; allowed: {allowed}")
    return kind(build_config(kind.Params, dict(model.params)), fusion.dim, fusion.width)
