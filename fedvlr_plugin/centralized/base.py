"""What the four centralized models share: typed parameters, features from the data set, scores, no stale cache.

A model implements `embed()` -> (users, items) and `loss(users, positives, negatives)`, ids from 0. RecBole's ids begin
at 1 (0 is padding) and are translated here; no table has a padding row.
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
    """Settings of every model; frozen, unknown keys are refused."""

    embedding_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    lr_decay: float = Field(1.0, gt=0, le=1)
    train_batch_size: int = Field(2048, ge=1)


class HostConfig(Protocol):
    """What is read of RecBole's Config: None for a missing key."""

    def __getitem__(self, key: str) -> Any: ...  # RecBole's own type


class HostInteraction(Protocol):
    """What is read of RecBole's Interaction: a column by field name."""

    def __getitem__(self, field: str) -> torch.Tensor: ...


class CentralizedModel(GeneralRecommender):
    """Base of VBPR, BM3, MGCN and PGL.

    Args:
        config: RecBole's Config; missing parameters take their defaults.
        dataset: the training part; features come from its `item_features`, or from RecBole's `preload_weight`.

    Raises:
        ConfigError: a parameter of the wrong type or out of range. DataError: fewer modalities than the model needs.
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
        """User and item vectors for scoring, `[n_users, d]` and `[n_items, d]`; a score is their product."""

    @abstractmethod
    def loss(self, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of pairs, ids from 0; `negatives` equal `positives` where the model takes none."""

    def calculate_loss(self, interaction: HostInteraction) -> torch.Tensor:
        """The loss of one of RecBole's batches."""
        self._cache = None
        positives = interaction[self.ITEM_ID] - 1
        negatives = interaction[self.NEG_ITEM_ID] - 1 if self.uses_negatives else positives
        return self.loss(interaction[self.USER_ID] - 1, positives, negatives)

    def predict(self, interaction: HostInteraction) -> torch.Tensor:
        """Scores of pairs, `[B]`."""
        users, items = self._vectors()
        # get_flops asks for the padding item, which has no row: it gets the first item's score
        chosen = items[(interaction[self.ITEM_ID] - 1).clamp(min=0)]
        return (users[(interaction[self.USER_ID] - 1).clamp(min=0)] * chosen).sum(dim=1)

    def full_sort_predict(self, interaction: HostInteraction) -> torch.Tensor:
        """Scores of all items for each user, flat `[B * (n_items + 1)]`; the padding item scores -inf."""
        scores = self.score(interaction[self.USER_ID] - 1)
        return torch.nn.functional.pad(scores, (1, 0), value=-torch.inf).view(-1)

    def score(self, users: torch.Tensor) -> torch.Tensor:
        """Scores of all items, `[B, n_items]`, ids from 0."""
        rows, items = self._vectors()
        return rows[users] @ items.T

    def _vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training:
            return self.embed()
        if self._cache is None:
            with torch.no_grad():
                self._cache = self.embed()
        return self._cache

    def train(self, mode: bool = True) -> CentralizedModel:
        """As torch's, and forgets the vectors kept for scoring."""
        self._cache = None
        super().train(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, and forgets the vectors kept for scoring."""
        self._cache = None
        return super().load_state_dict(state_dict, strict, assign)


def xavier(n_rows: int, width: int) -> torch.nn.Parameter:
    """A trainable table `[n_rows, width]`, Xavier-uniform."""
    return torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(n_rows, width)))


def feature_table(modality: Modality) -> torch.nn.Parameter:
    """A trainable table that starts as the modality's matrix."""
    return torch.nn.Parameter(torch.from_numpy(modality.matrix.copy()))


def _column(dataset: Any, field: str) -> npt.NDArray[np.int64]:
    return np.asarray(dataset.inter_feat[field]).astype(np.int64) - 1


def _features(config: HostConfig, dataset: Any, n_items: int) -> tuple[Modality, ...]:
    """Modalities of our data set class, else of RecBole's `preload_weight` (its rows follow RecBole's ids)."""
    found = getattr(dataset, "item_features", None)
    if isinstance(found, ItemFeatures):
        return tuple(found.values())
    weights = config["preload_weight"] or {}
    everything = np.ones(n_items, dtype=np.bool_)
    loaded = {name: dataset.get_preload_weight(name) for name in weights}
    return tuple(
        Modality(name, np.asarray(matrix[1:], dtype=np.float32), everything, "preload_weight")
        for name, matrix in loaded.items()
    )
