"""FedVLR as a RecBole general recommender: any federated row, trained by `FedVLRTrainer`, scored like any model.

The key `row` names backbone and fusion (`FedAvg+ours`, `FedRAP+MLP`, ...). The fields of `TrainingConfig`,
`ModelConfig`, `Protocol` and `ExecutionConfig` are keys too; `seed` is RecBole's. RecBole's ids start at 1 (0 is
padding), those of this package at 0; they are translated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from pydantic import BaseModel

from fedvlr_plugin.config import (
    PROTOCOLS,
    ExecutionConfig,
    ModelConfig,
    Protocol,
    RunSpec,
    TrainingConfig,
    build_config,
)
from fedvlr_plugin.data.recbole.config import FedVLRConfig
from fedvlr_plugin.data.recbole.dataset import FedVLRDataset
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.federation.simulation import Federation

from recbole.config import Config  # isort: skip
from recbole.data.interaction import Interaction  # isort: skip
from recbole.model.abstract_recommender import GeneralRecommender  # isort: skip
from recbole.utils import InputType  # isort: skip

DEFAULT_ROW = "FedAvg+ours"
_Part = TypeVar("_Part", bound=BaseModel)


class _Handle:
    """Excludes a federation from deep copies: RecBole copies a model, with all its clients, to count its operations."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation

    def __deepcopy__(self, memo: dict[int, object]) -> _Handle:
        return self


class FedVLR(GeneralRecommender):
    """A federated row as a RecBole model.

    Args:
        config: RecBole's Config.
        dataset: the data set.

    Raises:
        ConfigError: the data set is not a `FedVLRDataset`, or a setting is wrong.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: FedVLRDataset) -> None:
        super().__init__(config, dataset)
        if not isinstance(dataset, FedVLRDataset):
            raise ConfigError(
                f"FedVLR needs a FedVLRDataset, got {type(dataset).__name__}; call fedvlr_plugin.register() before "
                "run_recbole, or build the data set with fedvlr_plugin.data.recbole.loader.open_dataset"
            )
        self.spec, execution = spec_from_config(config, dataset.dataset_name)
        row = parse_row(self.spec.row)
        self._handle = _Handle(build_federation(row, self.spec, execution, dataset.prepared))
        self.shared = self.federation.server.model

    @property
    def federation(self) -> Federation:
        """The federation that is simulated."""
        return self._handle.federation

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """Raise `NotImplementedError`: clients train in rounds on their own samples, not on RecBole's batches."""
        raise NotImplementedError("FedVLR is trained in rounds by FedVLRTrainer, not batch by batch; use that trainer")

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Score the pairs of a RecBole batch, `[B]`."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        distinct, position = torch.unique(users, return_inverse=True)
        return self.federation.score(distinct - 1)[position, (items - 1).to(self.federation.device)]

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Score all items for each user of a RecBole batch, flat `[B * n_items]`; the padding item, the first, scores -inf."""
        scores = self.federation.score(interaction[self.USER_ID] - 1)
        return torch.nn.functional.pad(scores, (1, 0), value=-torch.inf).view(-1)

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """Return the private parameters of all clients, for checkpoints, without optimiser moments."""
        return self.federation.engine.state(moments=False)

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Load private parameters; those that are missing in `state`, and all optimisers, are reset."""
        self.federation.engine.load(state)
        self.federation.server.refresh()


def spec_from_config(config: Config, dataset: str) -> tuple[RunSpec, ExecutionConfig]:
    """Make the specification and execution settings from a RecBole configuration.

    Args:
        config: RecBole's Config.
        dataset: name of the data set.

    Raises:
        ConfigError: a value is wrong, or the row is not federated.
    """
    named = config["protocol"] if "protocol" in config else "corrected"
    if named not in PROTOCOLS:
        raise ConfigError(f"protocol '{named}' is not known; allowed: {', '.join(PROTOCOLS)}")
    protocol = build_config(Protocol, PROTOCOLS[named].model_dump() | _given(config, Protocol, skip=("name",)))
    training = build_config(TrainingConfig, _given(config, TrainingConfig))
    model = build_config(ModelConfig, _given(config, ModelConfig))
    values = _given(config, ExecutionConfig)
    values["device"] = str(config["device"])
    execution = build_config(ExecutionConfig, values)
    row = parse_row(config["row"] if "row" in config else DEFAULT_ROW)
    if row.kind != "federated":
        raise ConfigError(f"row '{row.name}' is not federated; name a backbone with or without +MLP, +VBPR or +ours")
    seed = config["seed"]
    spec = RunSpec(dataset=dataset, row=row.name, seed=seed, protocol=protocol, training=training, model=model)
    return spec, execution


def _given(config: Config, part: type[_Part], skip: tuple[str, ...] = ()) -> dict[str, object]:
    """Return the fields of a part that the user has set."""
    external: Mapping[str, object] = config.external_config_dict
    return {key: external[key] for key in part.model_fields if key in external and key not in skip}


__all__ = ["DEFAULT_ROW", "FedVLR", "FedVLRConfig", "spec_from_config"]
