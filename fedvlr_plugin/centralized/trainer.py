"""RecBole's Trainer for VBPR, BM3, MGCN and PGL: the schedule and the selection of `fitting`, RecBole's loaders.

`run_recbole` finds it by name after `register()`. RecBole's keys `epochs`, `stopping_step`, `eval_step`, `learner`,
`valid_metric` keep their meaning. Imports `fitting`, the RecBole adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fedvlr_plugin.centralized.fitting import Epoch, Plan, fit
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.recbole.quiet import QuietTrainer


class _Loader:
    """RecBole's training loader as a source of batches; it shuffles and samples by itself."""

    def __init__(self, loader: Any, device: Any) -> None:
        self._loader, self._device = loader, device

    def epoch(self, source: np.random.Generator) -> Iterator[Any]:
        for batch in self._loader:
            yield batch.to(self._device)


class CentralizedTrainer(QuietTrainer):
    """Trains a `CentralizedModel`; the model is left with the parameters of its best epoch."""

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Trains to the best epoch by `valid_metric`, compared unrounded and strictly.

        Args:
            train_data, valid_data: RecBole's loaders. saved: write a checkpoint under `checkpoint_dir`.
            callback_fn: (epoch from 0, score) after each validation.

        Returns:
            The best validation score and RecBole's metrics of that epoch.
        """
        if valid_data is None:
            raise ConfigError("training needs validation data to choose the epoch by; pass valid_data")
        if not self.valid_metric_bigger:
            raise ConfigError(f"valid_metric '{self.valid_metric}' is better when smaller; choose NDCG@k or Hit@k")
        self.eval_collector.data_collect(train_data)
        best: tuple[float, dict[str, float]] = (float("-inf"), {})

        def validate() -> dict[str, float]:
            _, metrics = self._valid_epoch(valid_data, show_progress)
            return dict(metrics)

        def report(epoch: Epoch) -> None:
            nonlocal best
            if epoch.valid is None:
                return
            score = epoch.valid[self.valid_metric]
            if score > best[0]:
                best = (score, dict(epoch.valid))
            if verbose:
                self.logger.info(f"epoch {epoch.number}: loss {epoch.loss:.4f}, valid {self.valid_metric} {score:.6f}")
            if callback_fn is not None:
                callback_fn(epoch.number - 1, score)

        config = self.config
        plan = Plan(config["epochs"], config["stopping_step"], max(1, config["eval_step"] or 1), self.valid_metric)
        batches = _Loader(train_data, self.device)
        fit(self.model, config, batches, validate, plan, np.random.default_rng(config["seed"]), report)
        self.best_valid_result = best[1]
        if saved:
            self.save(f"seed{config['seed']}")
        return best
