"""Base class of the four centralized models: typed parameters, item features, scores, and the cache for scoring.

A model implements `embed()`, which returns user and item vectors, and `loss(users, positives, negatives)`. Ids start at
0 there; RecBole's start at 1 (0 is padding) and are translated here. No table has a padding entry.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from fedvlr_plugin.compat import prepare_recbole
from fedvlr_plugin.config import Frozen, build_config
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.errors import DataError

prepare_recbole()

from recbole.model.abstract_recommender import GeneralRecommender  # noqa: E402
from recbole.utils import InputType  # noqa: E402


class CentralizedParams(Frozen):
    """Settings of every model; frozen, and unknown keys are refused.

    Attributes:
        embedding_size: width d of user and item vectors, at least 1.
        learning_rate: above 0.
        lr_decay: factor on the learning rate over every 50 epochs, in (0, 1].
        train_batch_size: pairs in a batch, at least 1.
    """

    embedding_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    lr_decay: float = Field(1.0, gt=0, le=1)
    train_batch_size: int = Field(2048, ge=1)


class HostConfig(Protocol):
    """The part of RecBole's Config that models read; a missing key gives None."""

    def __getitem__(self, key: str) -> Any: ...  # RecBole's own type


class HostInteraction(Protocol):
    """The part of RecBole's Interaction that models read: a column by field name."""

    def __getitem__(self, field: str) -> torch.Tensor: ...


class CentralizedModel(GeneralRecommender):
    """Base of VBPR, BM3, MGCN and PGL.

    Args:
        config: RecBole's Config; missing parameters take their defaults.
        dataset: the training part; features come from its `item_features`, or from RecBole's `preload_weight`.

    Raises:
        ConfigError: a parameter has the wrong type or is out of range.
        DataError: there are fewer modalities than the model needs.
    """

    input_type = InputType.PAIRWISE
    Params: ClassVar[type[CentralizedParams]]
    needs_modalities: ClassVar[int] = 0
    uses_negatives: ClassVar[bool] = True

    def __init__(self, config: HostConfig, dataset: Any) -> None:
        super().__init__(config, dataset)
        fields = {name: config[name] for name in self.Params.model_fields}
        self.params = build_config(self.Params, {name: v for name, v in fields.items() if v is not None})
        self.shape = (self.n_users - 1, self.n_items - 1)
        self.train_users = _column(dataset, self.USER_ID)
        self.train_items = _column(dataset, self.ITEM_ID)
        self.modalities = _features(config, dataset, self.shape[1])
        if len(self.modalities) < self.needs_modalities:
            raise DataError(
                f"{type(self).__name__} needs item features, but the data set has none; add a modality "
                "(<name>_features.npy beside inter.csv), or use VBPR or BM3"
            )
        self._cache: tuple[torch.Tensor, torch.Tensor] | None = None

    @abstractmethod
    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute user vectors `[n_users, d]` and item vectors `[n_items, d]`; a score is their inner product."""

    @abstractmethod
    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            users: ids from 0, `[B]`.
            positives: items of the users' training histories, `[B]`.
            negatives: drawn items, `[B]`; the same as `positives` if the model uses no negatives.

        Returns:
            A scalar.
        """

    def calculate_loss(self, interaction: HostInteraction) -> torch.Tensor:
        """Compute the loss of a RecBole batch, ids from 1."""
        self._cache = None
        positives = interaction[self.ITEM_ID] - 1
        negatives = interaction[self.NEG_ITEM_ID] - 1 if self.uses_negatives else positives
        return self.loss(interaction[self.USER_ID] - 1, positives, negatives)

    def predict(self, interaction: HostInteraction) -> torch.Tensor:
        """Score the pairs of a RecBole batch, `[B]`."""
        users, items = self._vectors()
        # get_flops asks for the padding item, which has no vector: it gets the first item's score
        chosen = items[(interaction[self.ITEM_ID] - 1).clamp(min=0)]
        return (users[(interaction[self.USER_ID] - 1).clamp(min=0)] * chosen).sum(dim=1)

    def full_sort_predict(self, interaction: HostInteraction) -> torch.Tensor:
        """Score all items for each user of a RecBole batch, flat `[B * (n_items + 1)]`; the padding item scores -inf."""
        scores = self.score(interaction[self.USER_ID] - 1)
        return torch.nn.functional.pad(scores, (1, 0), value=-torch.inf).view(-1)

    def score(self, users: torch.Tensor) -> torch.Tensor:
        """Score all items for `users` `[B]` (ids from 0), `[B, n_items]`."""
        vectors, items = self._vectors()
        return vectors[users] @ items.T

    def _vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training:
            return self.embed()
        if self._cache is None:
            with torch.no_grad():
                self._cache = self.embed()
        return self._cache

    def train(self, mode: bool = True) -> CentralizedModel:
        """Set training mode, as in torch, and delete the cached vectors."""
        self._cache = None
        super().train(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state, as in torch, and delete the cached vectors."""
        self._cache = None
        return super().load_state_dict(state_dict, strict, assign)


def xavier(n_rows: int, width: int) -> torch.nn.Parameter:
    """Create a trainable table `[n_rows, width]` with Xavier-uniform values."""
    return torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(n_rows, width)))


def feature_table(modality: Modality) -> torch.nn.Parameter:
    """Create a trainable table `[n_items, dim]` initialised with the modality's matrix."""
    return torch.nn.Parameter(torch.from_numpy(modality.matrix.copy()))


def _column(dataset: Any, field: str) -> npt.NDArray[np.int64]:
    return np.asarray(dataset.inter_feat[field]).astype(np.int64) - 1


def _features(config: HostConfig, dataset: Any, n_items: int) -> tuple[Modality, ...]:
    """Return the modalities of this package's data set class, else those of RecBole's `preload_weight` (in its ids)."""
    features = getattr(dataset, "item_features", None)
    if isinstance(features, ItemFeatures):
        return tuple(features.values())
    weights = config["preload_weight"] or {}
    present = np.ones(n_items, dtype=np.bool_)
    loaded = {name: dataset.get_preload_weight(name) for name in weights}
    return tuple(
        Modality(name, np.asarray(matrix[1:], dtype=np.float32), present, "preload_weight")
        for name, matrix in loaded.items()
    )
