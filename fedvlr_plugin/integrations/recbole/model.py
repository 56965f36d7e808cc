"""FedVLR as a RecBole general recommender: any federated row, trained by `FedVLRTrainer`, scored like any model.

`row` names the backbone and the fusion (`FedAvg+ours`, `FedRAP+MLP`, ...); the keys of `TrainingConfig`,
`ModelConfig`, `Protocol` and `ExecutionConfig` may be set under their own names, some under RecBole's (`settings.SAME`);
`seed` and `valid_metric` are RecBole's. RecBole's ids count from 1 (0 is padding), ours from 0: translated here.
"""

from __future__ import annotations

import torch

from fedvlr_plugin.data.recbole.config import FedVLRConfig, given_keys
from fedvlr_plugin.data.recbole.dataset import FedVLRDataset
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import SELECTED_BY
from fedvlr_plugin.integrations.recbole.settings import DEFAULT_ROW, spec_from_config
from fedvlr_plugin.integrations.recbole.valid_metric import ValidMetric

from recbole.config import Config  # isort: skip
from recbole.data.interaction import Interaction  # isort: skip
from recbole.model.abstract_recommender import GeneralRecommender  # isort: skip
from recbole.utils import InputType  # isort: skip


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
        self.valid_metric = ValidMetric.parse(given_keys(config).get("valid_metric") or SELECTED_BY)
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


__all__ = ["DEFAULT_ROW", "FedVLR", "FedVLRConfig", "spec_from_config"]
