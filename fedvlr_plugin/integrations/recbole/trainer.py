"""RecBole's Trainer for FedVLR: rounds instead of batches, nothing written unless asked for.

`fit` runs `federation.training.fit` and keeps the round with the best validation NDCG@50 of our evaluation,
unrounded; RecBole's own evaluator then reports on it. Imports the federation, `benchmark.ranking` and RecBole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.training import SELECTED_BY, Fitted, RoundReport, fit
from fedvlr_plugin.integrations.recbole.model import FedVLR
from fedvlr_plugin.integrations.recbole.quiet import QuietTrainer

from recbole.config import Config  # isort: skip
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader  # isort: skip


class FedVLRTrainer(QuietTrainer):
    """Trains a `FedVLR`; `fitted` holds the accounts of the last `fit`."""

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

    def save(self, tag: str = "") -> Path:
        """Writes a RecBole checkpoint (configuration, shared and private parameters) under a name of its own."""
        return super().save(tag or self.model.spec.spec_hash)
