"""The server: shared weights, the broadcast, and one pull-back of the summed uplink (algorithm.md section 2).

By the chain rule sum_u alpha_u J^T g_u = J^T sum_u alpha_u g_u, so clients need neither the fusion weights nor
the content matrices: the server sums what they upload, pulls the sum back through the fusion once, and takes one
optimiser step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedvlr_plugin.aggregation.broadcast import Broadcast, SharedLayer
from fedvlr_plugin.backbones.base import Backbone
from fedvlr_plugin.config import TrainingConfig
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.operators import make_linear
from fedvlr_plugin.fusion.views import ContentViews, FusionSettings, NaiveVBPRView
from fedvlr_plugin.rng import Stream, generator

INITIAL_SCALE = 0.1


class SharedModel(torch.nn.Module):
    """Everything that is shared: the ID table D, the fusion, and the backbone's item tables and layers."""

    def __init__(
        self,
        n_items: int,
        features: ItemFeatures,
        fusion: FusionSettings,
        backbone: Backbone,
        source: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.kind = fusion.kind
        self.id_table: torch.nn.Parameter | None = None
        content_only = fusion.kind in ("mlp", "blfm") and not fusion.id_embedding
        plain_without_views = fusion.kind == "none" and not backbone.needs_id_views
        if fusion.kind in ("none", "vbpr") and not fusion.id_embedding:
            raise ConfigError(f"id_embedding: false needs a fusion of contents (+MLP or +ours), got '{fusion.kind}'")
        if not content_only and not plain_without_views:
            self.id_table = _table(n_items, fusion.dim, source, dtype)
        self.fusion: torch.nn.Module | None = None
        if fusion.kind == "vbpr":
            self.fusion = NaiveVBPRView(features, fusion.dim, source, dtype)
        elif fusion.kind != "none":
            views = ("mlp",) if fusion.kind == "mlp" else fusion.views
            self.fusion = ContentViews(features, fusion.dim, views, fusion.id_embedding, source, dtype)
        tables = {name: _table(n_items, fusion.dim, source, dtype) for name in backbone.item_tables()}
        self.tables = torch.nn.ParameterDict(tables)
        layers = {n: make_linear(*sizes, source) for n, sizes in backbone.shared_layers().items()}
        self.layers = torch.nn.ModuleDict(layers).to(dtype)

    def forward(self) -> Broadcast:
        """Everything that goes out to the clients, with its autograd graph."""
        views: torch.Tensor | None = None
        if self.fusion is not None:
            views = self.fusion(self.id_table)
        elif self.id_table is not None:
            views = self.id_table[None]
        parameters = dict(self.layers.named_parameters())
        layers = {n: SharedLayer(parameters[f"{n}.weight"], parameters[f"{n}.bias"]) for n in self.layers}
        return Broadcast(views, dict(self.tables.items()), layers)


class Server:
    """The shared model and its optimiser; computes each round's broadcast once."""

    def __init__(
        self,
        n_items: int,
        features: ItemFeatures,
        fusion: FusionSettings,
        backbone: Backbone,
        training: TrainingConfig,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        source = generator(seed, Stream.SERVER_INIT)
        self.model = SharedModel(n_items, features, fusion, backbone, source, dtype).to(device)
        tables = [p for n, p in self.model.named_parameters() if n == "id_table" or n.startswith("tables.")]
        table_ids = {id(p) for p in tables}
        rest = [p for p in self.model.parameters() if id(p) not in table_ids]
        groups = [{"params": tables, "lr": training.server_lr_id}, {"params": rest, "lr": training.server_lr}]
        groups = [g for g in groups if g["params"]]
        kind = torch.optim.Adam if training.server_optimizer == "adam" else torch.optim.SGD
        self.optimizer: torch.optim.Optimizer = kind(groups)
        self._graph: Broadcast | None = None

    def broadcast(self) -> Broadcast:
        """What clients receive, without its graph; computed once per state of the shared weights."""
        return self._outgoing().map(torch.Tensor.detach)

    def _outgoing(self) -> Broadcast:
        """The broadcast with its graph, even when an evaluation without gradients asks for it first."""
        if self._graph is None:
            with torch.inference_mode(False), torch.enable_grad():
                self._graph = self.model()
        return self._graph

    def apply(self, uplink: Mapping[str, torch.Tensor]) -> None:
        """Pull the weighted sum of the uploads back through the fusion and take one optimiser step.

        Args:
            uplink: sum_u alpha_u upload_u, by the broadcast's names and shapes.

        Raises:
            ConfigError: a name or a shape is not that of the broadcast.
        """
        graph = self._outgoing().named()
        for name, value in uplink.items():
            if name not in graph or graph[name].shape != value.shape:
                raise ConfigError(f"uplink '{name}' {tuple(value.shape)} is not what was broadcast")
        self.optimizer.zero_grad(set_to_none=True)
        names = [name for name in uplink if graph[name].requires_grad]
        torch.autograd.backward([graph[n] for n in names], [uplink[n] for n in names])
        self.optimizer.step()
        self._graph = None

    def refresh(self) -> None:
        """Forget the computed broadcast, after the shared weights were changed from outside."""
        self._graph = None

    def state(self, moments: bool) -> dict[str, torch.Tensor]:
        """A copy of the shared weights as tensors by name (`model.*`), with `moments` the optimiser's too."""
        state = {f"model.{name}": value for name, value in self.snapshot().items()}
        if not moments:
            return state
        for number, values in self.optimizer.state_dict()["state"].items():
            state |= {
                f"optimizer.{number}.{name}": value.clone() for name, value in values.items() if value is not None
            }
        return state

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put a state in force; the optimiser starts anew where it holds no moments.

        Earlier versions stored a best round's weights without `model.` before their names.

        Raises:
            RuntimeError: weights are missing or misshapen.
        """
        weights = {
            key.removeprefix("model."): value for key, value in state.items() if not key.startswith("optimizer.")
        }
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                number, _, name = rest.partition(".")
                optimizer["state"].setdefault(int(number), {})[name] = value.clone()
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        self.refresh()

    def snapshot(self) -> dict[str, torch.Tensor]:
        """A copy of the shared weights by name."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def _table(n_items: int, dim: int, source: torch.Generator, dtype: torch.dtype) -> torch.nn.Parameter:
    drawn = torch.randn(n_items, dim, dtype=torch.float64, generator=source)
    return torch.nn.Parameter((INITIAL_SCALE * drawn).to(dtype))
