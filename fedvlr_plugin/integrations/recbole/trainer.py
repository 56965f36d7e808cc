"""Trainers of this package's models for RecBole; they write files only on request, and do not round metrics.

`FedVLRTrainer` runs `federation.training.fit` (rounds instead of batches) and keeps the round with the best validation
NDCG@50 of this package's evaluation; RecBole's evaluator then reports on it. `CentralizedTrainer` trains VBPR, BM3, MGCN and PGL
by the schedule and the selection of `centralized.training` over RecBole's loaders; RecBole's keys `epochs`,
`stopping_step`, `eval_step`, `learner` and `valid_metric` keep their meaning. `run_recbole` finds both by name after
`register()`.

RecBole's own Trainer opens a tensorboard writer, makes folders in the working directory, names checkpoints by the second
and rounds metrics to four digits before it compares them; its constructor is not called here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.training import SELECTED_BY, Fitted
from fedvlr_plugin.federation.training import fit as fit_rounds
from fedvlr_plugin.integrations.recbole.model import FedVLR

from recbole.config import Config  # isort: skip
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader  # isort: skip
import itertools
import os
from collections.abc import Iterator
from logging import getLogger
from typing import Any

import numpy as np
import torch

from fedvlr_plugin.centralized.training import Plan
from fedvlr_plugin.centralized.training import fit as fit_epochs
from fedvlr_plugin.data.recbole import config as _config  # noqa: F401  (prepares the host)
from fedvlr_plugin.errors import ConfigError

from recbole.evaluator import Collector, Evaluator  # isort: skip
from recbole.trainer import Trainer  # isort: skip
from recbole.utils import WandbLogger  # isort: skip


_COUNTER = itertools.count(1)
UNROUNDED = 12


class QuietTrainer(Trainer):
    """Base of `FedVLRTrainer` and `CentralizedTrainer`, which define `fit`: evaluation and checkpoints."""

    def __init__(self, config: Config, model: Any) -> None:
        self.config, self.model = config, model
        self.logger = getLogger()
        self.device = config["device"]
        self.gpu_available = self.device.type == "cuda"
        self.test_batch_size = config["eval_batch_size"]
        self.valid_metric = config["valid_metric"].lower()
        self.valid_metric_bigger = config["valid_metric_bigger"]
        self.eval_type = config["eval_type"]
        self.eval_collector = Collector(config)
        config["metric_decimal_place"] = max(UNROUNDED, config["metric_decimal_place"] or 0)
        self.evaluator = Evaluator(config)
        self.item_tensor = None
        self.tot_item_num = None
        self.wandblogger = WandbLogger(config)  # does nothing unless log_wandb is set
        self.best_valid_result: dict[str, float] | None = None
        self.saved_model_file: str | None = None

    def save(self, tag: str) -> Path:
        """Write a RecBole checkpoint (configuration, parameters) atomically under a new name with `tag`; return its path."""
        folder = Path(self.config["checkpoint_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.config['model']}-{tag}-{os.getpid()}-{next(_COUNTER)}.pth"
        state = {
            "config": self.config,
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
        }
        partial = target.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, target)
        self.saved_model_file = str(target)
        return target

    def evaluate(
        self,
        eval_data: FullSortEvalDataLoader,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """Evaluate the present parameters (after `fit`, the best ones) with RecBole's evaluator.

        Args:
            eval_data: RecBole's loader.
            load_best_model: not used.
            model_file: a checkpoint to load first; it holds RecBole's Config as a pickle, so name only files that you
                trust.
            show_progress: show a progress bar.
        """
        if model_file is not None:
            checkpoint = torch.load(model_file, map_location=self.device, weights_only=False)
            self.model.load_state_dict(checkpoint["state_dict"])
        result: dict[str, float] = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        return result


class FedVLRTrainer(QuietTrainer):
    """Trains a `FedVLR`; `fitted` holds the records of the last `fit`."""

    def __init__(self, config: Config, model: FedVLR) -> None:
        super().__init__(config, model)
        self.fitted: Fitted | None = None

    def fit(
        self,
        train_data: TrainDataLoader,
        valid_data: FullSortEvalDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Train to the end and load the best round's parameters.

        Args:
            train_data: RecBole's loader, for its evaluator; clients draw their own batches.
            valid_data: RecBole's loader for the report after training; None for no report.
            verbose: log each validation.
            saved: write a checkpoint under `checkpoint_dir`.
            show_progress: show a progress bar in the report.
            callback_fn: called with round and score after each validation.

        Returns:
            The best validation NDCG@50 as a fraction, and RecBole's metrics of that round.
        """
        federation = self.model.federation
        self.eval_collector.data_collect(train_data)

        def report(record: RoundRecord) -> None:
            if record.valid is None:
                return
            score = record.valid[SELECTED_BY] / 100.0
            if verbose:
                self.logger.info(f"round {record.round}: loss {record.train_loss:.4f}, valid ndcg@50 {score:.6f}")
            if callback_fn is not None:
                callback_fn(record.round, score)

        self.fitted = fit_rounds(federation, lambda: summary(rank_federation(federation, "valid")), report)
        if saved:
            self.save()
        best = max(r.valid[SELECTED_BY] for r in self.fitted.records if r.valid is not None) / 100.0
        if valid_data is not None:
            _, self.best_valid_result = self._valid_epoch(valid_data, show_progress)
        return best, self.best_valid_result or {}

    def save(self, tag: str = "") -> Path:
        """Write a RecBole checkpoint (configuration, shared and private parameters) under a new name; return its path."""
        return super().save(tag or self.model.spec.spec_hash)


class _Loader:
    """RecBole's training loader as a source of batches; the loader shuffles and samples itself."""

    def __init__(self, loader: Any, device: Any) -> None:
        self._loader, self._device = loader, device

    def epoch(self, source: np.random.Generator) -> Iterator[Any]:
        for batch in self._loader:
            yield batch.to(self._device)


class CentralizedTrainer(QuietTrainer):
    """Trains a `CentralizedModel`, which has the parameters of its best epoch afterwards."""

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Train and load the best epoch by `valid_metric`, unrounded; ties keep the first.

        Args:
            train_data: RecBole's loader.
            valid_data: RecBole's loader; required.
            verbose: log each validation.
            saved: write a checkpoint under `checkpoint_dir`.
            show_progress: show a progress bar.
            callback_fn: called with epoch (from 0) and score after each validation.

        Returns:
            The best validation score and RecBole's metrics of that epoch.

        Raises:
            ConfigError: there is no validation data, or `valid_metric` is better when smaller.
        """
        if valid_data is None:
            raise ConfigError("training needs validation data to choose the epoch by; pass valid_data")
        if not self.valid_metric_bigger:
            raise ConfigError(f"valid_metric '{self.valid_metric}' is better when smaller; choose NDCG@k or Hit@k")
        self.eval_collector.data_collect(train_data)
        best: BestRound[dict[str, float]] = BestRound()

        def validate() -> dict[str, float]:
            _, metrics = self._valid_epoch(valid_data, show_progress)
            return dict(metrics)

        def report(record: RoundRecord) -> None:
            if record.valid is None:
                return
            score, loss = record.valid[self.valid_metric], record.train_loss
            if best.offer(record.round, score):
                best.state = dict(record.valid)
            if verbose:
                self.logger.info(f"epoch {record.round}: loss {loss:.4f}, valid {self.valid_metric} {score:.6f}")
            if callback_fn is not None:
                callback_fn(record.round - 1, score)

        config = self.config
        plan = Plan(config["epochs"], config["stopping_step"], max(1, config["eval_step"] or 1), self.valid_metric)
        batches = _Loader(train_data, self.device)
        fit_epochs(self.model, config, batches, validate, plan, np.random.default_rng(config["seed"]), report)
        self.best_valid_result = best.state or {}
        if saved:
            self.save(f"seed{config['seed']}")
        return float("-inf") if best.score is None else best.score, self.best_valid_result
