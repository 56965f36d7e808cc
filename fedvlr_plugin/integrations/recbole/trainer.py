"""RecBole's Trainer for FedVLR: rounds instead of batches, nothing written unless asked for.

`fit` runs `federation.training.fit` and keeps the round with the best validation NDCG@50 of our evaluation,
unrounded; RecBole's own evaluator then reports on it. RecBole's Trainer opens a tensorboard writer, makes folders
in the working directory and names checkpoints by the second; its constructor is not called here. Imports the
federation, `benchmark.ranking` and RecBole.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

import torch

from fedvlr_plugin.benchmark.ranking import rank_federation
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.federation.training import SELECTED_BY, Fitted, RoundReport, fit
from fedvlr_plugin.integrations.recbole.model import FedVLR

from recbole.config import Config  # isort: skip
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader  # isort: skip
from recbole.evaluator import Collector, Evaluator  # isort: skip
from recbole.trainer import Trainer  # isort: skip
from recbole.utils import WandbLogger  # isort: skip

_COUNTER = itertools.count(1)


class FedVLRTrainer(Trainer):
    """Trains a `FedVLR`; `fitted` holds the accounts of the last `fit`."""

    def __init__(self, config: Config, model: FedVLR) -> None:
        self.config, self.model = config, model
        self.logger = getLogger()
        self.device = config["device"]
        self.gpu_available = self.device.type == "cuda"
        self.test_batch_size = config["eval_batch_size"]
        self.valid_metric = config["valid_metric"].lower()
        self.valid_metric_bigger = config["valid_metric_bigger"]
        self.eval_type = config["eval_type"]
        self.eval_collector = Collector(config)
        self.evaluator = Evaluator(config)
        self.item_tensor = None
        self.tot_item_num = None
        self.wandblogger = WandbLogger(config)  # does nothing unless log_wandb is set
        self.best_valid_result = None
        self.saved_model_file: str | None = None
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
        """Trains to the end and puts the best round's parameters in force.

        Args:
            train_data: collected from for the evaluator; clients draw their own batches.
            valid_data: what RecBole's evaluator reports on after training.
            saved: write a checkpoint under `checkpoint_dir`. callback_fn: (round, score) after each validation.

        Returns:
            The best validation NDCG@50 as a fraction, and RecBole's metrics of that round.
        """
        federation = self.model.federation
        self.eval_collector.data_collect(train_data)

        def report(done: RoundReport) -> None:
            if done.valid is None:
                return
            score = done.valid[SELECTED_BY] / 100.0
            if verbose:
                self.logger.info(f"round {done.round}: loss {done.uplink.loss:.4f}, valid ndcg@50 {score:.6f}")
            if callback_fn is not None:
                callback_fn(done.round, score)

        self.fitted = fit(federation, lambda: summary(rank_federation(federation, "valid")), report)
        if saved:
            self.save()
        best = max(r.valid[SELECTED_BY] for r in self.fitted.reports if r.valid is not None) / 100.0
        if valid_data is not None:
            _, self.best_valid_result = self._valid_epoch(valid_data, show_progress)
        return best, self.best_valid_result or {}

    def save(self) -> Path:
        """Writes a RecBole checkpoint (configuration, shared and private parameters) under a name of its own."""
        folder = Path(self.config["checkpoint_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.config['model']}-{self.model.spec.spec_hash}-{os.getpid()}-{next(_COUNTER)}.pth"
        target = folder / name
        state = {"config": self.config, "state_dict": self.model.state_dict(), "other_parameter": None}
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
        """RecBole's evaluator on the parameters in force (after `fit`, the best round's).

        With `model_file` that checkpoint's parameters are put in force first. It holds RecBole's Config as a pickle,
        so name only files that you trust.
        """
        if model_file is not None:
            checkpoint = torch.load(model_file, map_location=self.device, weights_only=False)
            self.model.load_state_dict(checkpoint["state_dict"])
        result: dict[str, float] = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        return result
