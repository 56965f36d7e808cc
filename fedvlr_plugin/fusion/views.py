"""Server-side multi-view fusion: content matrices and the ID table in, views `[G, n_items, d]` out.

    m~ = LN(W_m M + b_m) for every content modality M,  x = LN(D),
    F_j = LN(operator_j(m~_1, ..., m~_M, x)),  j = 1..G            (algorithm.md section 3, paper Eq. 2-3)

Any number of content modalities, none included; `id_embedding=False` really removes D (Figure 3), it is not
replaced by noise. The naive adaptation "+VBPR" is one view [D ; W [M_1; ...] + b] of width 2d without LayerNorm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fedvlr_plugin.config import ModelConfig
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.fusion.operators import PREFIX, VIEWS, ModalityView, ViewOperator, make_linear

Fusion = Literal["none", "mlp", "vbpr", "blfm"]


@dataclass(frozen=True)
class FusionSettings:
    """What a row and its model configuration say about fusion.

    Attributes:
        kind: `none`, `mlp` ("+MLP"), `vbpr` ("+VBPR") or `blfm` ("+ours").
        dim: d, width of the ID table and of projected content.
        views: names of the operators of `blfm`.
        id_embedding: whether the ID table D is fused.
    """

    kind: Fusion
    dim: int = 64
    views: tuple[str, ...] = ("sum", "mlp", "gate")
    id_embedding: bool = True

    @property
    def n_views(self) -> int:
        """Return G, the number of broadcast views."""
        return len(self.views) if self.kind == "blfm" else 1

    @property
    def width(self) -> int:
        """Return the width of one view, and so of e_i."""
        return 2 * self.dim if self.kind == "vbpr" else self.dim

    @property
    def routed(self) -> bool:
        """Tell whether clients mix views with a router."""
        return self.kind == "blfm"


class ContentViews(torch.nn.Module):
    """The fusion of the rows "+MLP" and "+ours": projections, operators, and a LayerNorm on every view.

    Args:
        features: content modalities `[n_items, m]`; may be empty.
        dim: d.
        views: names of the operators.
        id_embedding: whether D is fused, too.
        generator: source of all initial values.
        dtype: of parameters and content.

    Raises:
        ConfigError: an unknown operator, or neither content nor ID to fuse.
    """

    def __init__(
        self,
        features: ItemFeatures,
        dim: int,
        views: Sequence[str],
        id_embedding: bool,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        names = [*features, *(["id"] if id_embedding else [])]
        if not names:
            raise ConfigError("nothing to fuse: the data set has no content modality and id_embedding is off")
        self.projections = torch.nn.ModuleDict(
            {f"{k}": make_linear(m.matrix.shape[1], dim, generator) for k, m in enumerate(features.values())}
        )
        self.input_norms = torch.nn.ModuleList(torch.nn.LayerNorm(dim) for _ in names)
        self.operators = torch.nn.ModuleList(make_view(view, names, dim, generator) for view in views)
        self.view_norms = torch.nn.ModuleList(torch.nn.LayerNorm(dim) for _ in views)
        for k, modality in enumerate(features.values()):
            content = torch.from_numpy(modality.matrix).to(dtype)
            self.register_buffer(f"content_{k}", content, persistent=False)
        self.to(dtype)

    def forward(self, id_table: torch.Tensor | None) -> torch.Tensor:
        """Compute the views `[G, n_items, d]` from the ID table `[n_items, d]`, None where it is left out."""
        inputs = [layer(self.get_buffer(f"content_{k}")) for k, layer in self.projections.items()]
        if id_table is not None:
            inputs.append(id_table)
        normed = [norm(x) for norm, x in zip(self.input_norms, inputs, strict=True)]
        return torch.stack([norm(op(normed)) for op, norm in zip(self.operators, self.view_norms, strict=True)])


class NaiveVBPRView(torch.nn.Module):
    """The fusion of "+VBPR": one view [D_i ; W [M_1; ...]_i + b], without LayerNorm (algorithm.md section 5).

    Args:
        features: content modalities, at least one.
        dim: d.
        generator: source of the projection's weights.
        dtype: of parameters and content.

    Raises:
        ConfigError: the data set has no content modality.
    """

    def __init__(self, features: ItemFeatures, dim: int, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        matrices = [torch.from_numpy(m.matrix).to(dtype) for m in features.values()]
        if not matrices:
            raise ConfigError(
                "the fusion 'vbpr' needs a content modality and this data set has none; use a row without it"
            )
        self.register_buffer("content", torch.cat(matrices, dim=1), persistent=False)
        self.projection = make_linear(sum(m.shape[1] for m in matrices), dim, generator)
        self.to(dtype)

    def forward(self, id_table: torch.Tensor) -> torch.Tensor:
        """Compute the view `[1, n_items, 2d]` from the ID table `[n_items, d]`."""
        return torch.cat([id_table, self.projection(self.get_buffer("content"))], dim=1)[None]


def make_view(name: str, inputs: Sequence[str], dim: int, generator: torch.Generator) -> ViewOperator:
    """Make an operator.

    Args:
        name: a name of the registry, or `only:INPUT`.
        inputs: names of the inputs.
        dim: d.
        generator: source of all initial values.

    Raises:
        UnknownNameError: no operator has the name; the message has the nearest one.
        ConfigError: `only:` names no input.
    """
    if name.startswith(PREFIX):
        return ModalityView(inputs, dim, generator, name.removeprefix(PREFIX))
    return VIEWS.get(name)(inputs, dim, generator)


def check_views(views: Sequence[str]) -> None:
    """Refuse unknown or repeated operators, before any data is read.

    Raises:
        UnknownNameError: no operator has a name.
        ConfigError: a name comes twice.
    """
    for name in views:
        if not name.startswith(PREFIX):
            VIEWS.get(name)
    if len(set(views)) != len(views):
        raise ConfigError(f"views: an operator is named twice in {list(views)}; name each once")


def make_fusion(kind: Fusion, model: ModelConfig) -> FusionSettings:
    """Put the fusion settings of a row together; raises what `check_views` raises."""
    if kind == "blfm":
        check_views(model.views)
    return FusionSettings(kind, model.dim, model.views, model.id_embedding)
