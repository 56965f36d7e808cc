"""Train and evaluate any general RecBole model with this package's split, masking and metrics.

`run(spec)` uses this for rows of kind `recbole`. The best epoch is chosen by validation NDCG@50, and the test split is
read once. Of the specification's training part, `rounds` (epochs), `patience` and `eval_every` apply. Learning rate and
sizes are parameters of the model (`recbole_configs/model/<Name>.yaml`). One negative is drawn for each positive unless
the parameters set `negatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fedvlr_plugin.centralized.batches import Batches, Kind, NegativeSampler
from fedvlr_plugin.centralized.recbole_dataset import TrainingRows, make_config
from fedvlr_plugin.centralized.training import Plan, fit, is_closed_form
from fedvlr_plugin.config import Protocol
from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Ranks, Scorer, rank_positives
from fedvlr_plugin.evaluation.round_record import RoundRecord

PAIRS_AT_ONCE = 2**18


class Trainable:
    """A model with its config, batches and scorer, ready to train.

    Args:
        model_class: the model.
        data: the prepared data set.
        protocol: pool of the negatives, and masks at test.
        params: hyper-parameters of the model; `negatives`, at least 1, may be among them.
        device: of torch.
        dim: `embedding_size` if `params` does not set it.
        rows: users and items of the training pairs, ids from 0, both `[n]`; None for the distinct pairs of the data.

    Raises:
        ConfigError: a parameter is unknown or out of range.
    """

    def __init__(
        self,
        model_class: type,
        data: PreparedData,
        protocol: Protocol,
        params: dict[str, object],
        device: str = "cpu",
        dim: int | None = None,
        rows: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        settings = dict(params)
        negatives = settings.pop("negatives", 1)
        if not isinstance(negatives, int) or negatives < 1:
            raise ConfigError(f"negatives must be a whole number of at least 1, got {negatives!r}")
        self.data, self.protocol = data, protocol
        self.config = make_config(model_class, data, settings, device, dim)
        self.config["train_neg_sample_args"]["sample_num"] = negatives  # SimpleX reads it
        dataset = TrainingRows(self.config, data, rows)
        self.model = model_class(self.config, dataset).to(self.config["device"])
        sampler = NegativeSampler(data.interactions, protocol.negative_pool)
        chosen = rows or (data.interactions.train_users, data.interactions.train_items)
        size = int(self.config["train_batch_size"])
        self.batches = Batches(batch_kind(self.model, self.config), chosen, sampler, size, negatives, self.config)

    def scorer(self) -> Scorer:
        """Return the function that scores all items, ids from 0."""
        return make_scorer(self.model, self.config, self.data.interactions.n_items)

    def rank(self, phase: Any) -> Ranks:
        """Rank the held-out items of a phase (`valid` or `test`) under the protocol's masks."""
        mask = self.protocol.mask_validation_at_test
        device = self.config["device"]
        return rank_positives(
            self.scorer(), self.data.interactions, phase, mask_validation=mask, device=device
        )  # fmt: skip

    def fit(self, plan: Plan, source: np.random.Generator, on_epoch: Callable[[RoundRecord], None]) -> int:
        """Train and keep the best epoch, see `training.fit`.

        Args:
            plan: epochs, patience and selection.
            source: of the random numbers for batches.
            on_epoch: called with the record of each epoch.

        Returns:
            The best epoch, counted from 1.
        """

        def validate() -> dict[str, float]:
            return summary(self.rank("valid"))

        return fit(self.model, self.config, self.batches, validate, plan, source, on_epoch)


def batch_kind(model: Any, config: Any) -> Kind:
    """Return what the model trains on: users (autoencoders), positives (closed forms), pairs or labelled pairs."""
    from recbole.data import utils
    from recbole.data.dataloader import UserDataLoader

    if is_closed_form(model):
        return "positives"
    if utils.get_dataloader(config, "train") is UserDataLoader:
        return "users"
    if not getattr(model, "uses_negatives", True):
        return "positives"
    return "pairs" if str(model.input_type) == "InputType.PAIRWISE" else "labelled"


def make_scorer(model: Any, config: Any, n_items: int) -> Scorer:
    """Return the function that scores all items with a model.

    Args:
        model: has `score`, or else `full_sort_predict`, or else `predict`, which is called on all pairs.
        config: RecBole's Config.
        n_items: without padding.
    """
    from recbole.data.interaction import Interaction

    user, item = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]

    def full(users: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = model.full_sort_predict(Interaction({user: users + 1}))
        return scores.view(len(users), n_items + 1)[:, 1:].float()

    def pairwise(users: torch.Tensor) -> torch.Tensor:
        every = torch.arange(1, n_items + 1, device=users.device)
        left, right = (users + 1).repeat_interleave(n_items), every.repeat(len(users))
        parts = zip(left.split(PAIRS_AT_ONCE), right.split(PAIRS_AT_ONCE), strict=True)
        scores = torch.cat([model.predict(Interaction({user: u, item: i})) for u, i in parts])
        return scores.view(len(users), n_items).float()

    def either(users: torch.Tensor) -> torch.Tensor:
        try:
            return full(users)
        except NotImplementedError:
            return pairwise(users)

    if hasattr(model, "score"):
        direct: Scorer = model.score
        return direct
    return either
