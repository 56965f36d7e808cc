"""The contract of backbones: a backbone says what is learned, an engine says how it is executed.

A backbone declares its private dense parameters, its private item vectors, its shared item tables and layers, and
writes its score once, against a `ClientView`. The same object runs under the sequential engine (one client,
B = 1), the batched engine (B clients as one tensor program), in evaluation (S = all items) and in the FedML pair.
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
        """Tell whether the row broadcasts item views at all (the vanilla FedNCF does not)."""

    def private(self, name: str) -> torch.Tensor:
        """Return a private dense parameter of each client, `[B, 1, *shape]`, by its name in `initial_private`."""

    def item(self) -> torch.Tensor:
        """Return the item vector e_i `[B, S, width]`: D_i, the one view, or the client's mixture of views."""

    def table(self, name: str) -> torch.Tensor:
        """Return the items' vectors `[B, S, d]` in a shared table of `Backbone.item_tables`, by its name."""

    def own(self) -> torch.Tensor:
        """Return the client's private item vectors, `[B, S, d]`."""

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply a shared linear layer of `Backbone.shared_layers`.

        Args:
            name: name of the layer.
            x: its inputs, `[B, S, n_in]`.

        Returns:
            Its outputs, `[B, S, n_out]`, before any activation.
        """

    def joined(self, name: str, user: torch.Tensor, table: str) -> torch.Tensor:
        """Apply a shared layer to a user vector beside an item vector.

        An engine may compute the item's part once for all clients; the pair of layer and table is named in
        `Backbone.joins`.

        Args:
            name: name of the layer, with n_in = k + d.
            user: a private vector of each client, `[B, 1, k]`.
            table: the shared item table; e_i is added to its vectors where the row broadcasts item views.

        Returns:
            `[B, S, n_out]`, before any activation.
        """

    def matched(self, name: str, hidden: torch.Tensor, user: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Apply a shared layer of one output to `hidden` beside `user * rows`.

        Args:
            name: name of the layer, with n_in = k + d and n_out = 1.
            hidden: `[B, S, k]`.
            user: a private vector of each client, `[B, 1, d]`.
            rows: item vectors, `[B, S, d]`.

        Returns:
            `[B, S]`.
        """

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average `values [B, S, k]` over the items that are no padding and over the last axis, to `[B]`."""


class BackboneParams(Frozen):
    """Base of a backbone's own hyper-parameters: frozen; an unknown key is refused with the nearest name."""


class Slopes(NamedTuple):
    """A penalty of D pairs of client and item, in closed form.

    Attributes:
        value: sum over the width, `[D]`.
        item: derivative by e_i, `[D, d]`.
        own: derivative by the private item vector, `[D, d]`.
    """

    value: torch.Tensor
    item: torch.Tensor
    own: torch.Tensor


class Push(NamedTuple):
    """Constants of FedRAP's penalty mu |e| - lambda min((P - e)^2, edge^2) of an entry of e_i and one of P_ui.

    Attributes:
        mu: weight of |e|.
        lam: lambda, weight of the squared difference.
        edge: difference from which on the gradient is 0.
    """

    mu: float
    lam: float
    edge: float


PrivateItemsKind = Literal["none", "persistent", "fresh"]
StateGroup = Literal["head", "router", "own"]


class Backbone(ABC):
    """Base of all backbones; `initial_private` and `logits` must be given.

    Class attributes:
        name: name in tables and commands.
        Params: frozen class of its own hyper-parameters.
        fusions: fusions that it supports.
        client_weight: alpha_u, `"samples"` (n_u over the cohort's sum) or `"equal"` (1 / cohort size).
        linear: true when the score is exactly `theta . e_i + b` with private `theta`, `b`, or, with private item
            rows, `theta . (e_i + own_i) + b`; lets the batched engine use the closed form of section 11. With a
            penalty `penalty_slopes` must then give its derivatives.
        own_rows: private item vectors: none, kept for ever, or fresh (zero, moments too) at each participation.
        needs_id_views: whether the vanilla form broadcasts the ID table as its one view.
        has_penalty: whether `penalty` returns a tensor.
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
        """Keep the settings.

        Args:
            params: the backbone's hyper-parameters, an instance of `Params`.
            dim: d, width of tables and private vectors.
            width: width of e_i; 2 d under the naive VBPR fusion, else d.
        """
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
        """Draw the initial private dense parameters; every client starts from them (algorithm.md section 1).

        Args:
            generator: source of all random numbers.

        Returns:
            Tensors in float64 by name, of any shapes.
        """

    def item_tables(self) -> tuple[str, ...]:
        """Name the shared item tables `[n_items, d]`, broadcast as they are."""
        return ()

    def shared_layers(self) -> Mapping[str, tuple[int, int]]:
        """Give the sizes (n_in, n_out) of the shared linear layers by name."""
        return {}

    def joins(self) -> Mapping[str, str]:
        """Name the layers that `logits` applies through `ClientView.joined`, each with its one table."""
        return {}

    @abstractmethod
    def logits(self, x: ClientView) -> torch.Tensor:
        """Score the items of a block of clients, `[B, S]`, before the sigmoid."""

    def penalty(self, x: ClientView, round: int) -> torch.Tensor | None:
        """Regularise each client over the distinct items of its batch.

        Args:
            x: the view of those items.
            round: communication round, counted from 1.

        Returns:
            What is added to each client's batch loss, `[B]`; None for nothing.
        """
        return None

    def penalty_slopes(self, item: torch.Tensor, own: torch.Tensor, round: int) -> Slopes | None:
        """Give `penalty` in closed form, where it is a mean over items and width of a function of e_i and P_ui.

        Args:
            item: e_i of D pairs of client and distinct item, `[D, d]`.
            own: their private item vectors, `[D, d]`.
            round: communication round, counted from 1.

        Returns:
            The penalty and its derivatives; None where autograd is to be used.
        """
        return None

    def penalty_push(self, round: int) -> Push | None:
        """Give the constants of `penalty` where it has the form of `Push`, so that compiled loops compute it; else None."""
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
    """Draw the head of the linear backbones, in float64.

    Args:
        width: of e_i.
        generator: source of the draw.

    Returns:
        `theta [width]`, uniform in +-1/sqrt(width), and `b [1]`, zero.
    """
    bound = width**-0.5
    theta = torch.empty(width, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
    return {"theta": theta, "b": torch.zeros(1, dtype=torch.float64)}


def make_backbone(name: str, fusion: FusionSettings, model: ModelConfig) -> Backbone:
    """Build a backbone with its own hyper-parameters.

    Args:
        name: a name of the registry.
        fusion: the row's fusion.
        model: `params` holds the hyper-parameters.

    Raises:
        UnknownNameError: no backbone has the name.
        ConfigError: it does not support the fusion, or a hyper-parameter is unknown or out of its range.
    """
    from fedvlr_plugin.config import build_config

    kind = BACKBONES.get(name)
    if fusion.kind not in kind.fusions:
        allowed = ", ".join(sorted(kind.fusions))
        raise ConfigError(f"backbone '{name}' does not support the fusion '{fusion.kind}'; allowed: {allowed}")
    return kind(build_config(kind.Params, dict(model.params)), fusion.dim, fusion.width)
