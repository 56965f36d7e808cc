"""RecBole's trainers for our models: nothing is written unless asked for, and nothing is rounded before it is compared.

`FedVLRTrainer` runs `federation.training.fit` (rounds instead of batches) and keeps the round with the best `valid_metric`
of our evaluation, NDCG@50 where none was given; RecBole's own evaluator then reports on it. `CentralizedTrainer` trains VBPR, BM3, MGCN and PGL
by the schedule and the selection of `centralized.training` over RecBole's loaders; RecBole's keys `epochs`,
`stopping_step`, `eval_step`, `learner` and `valid_metric` keep their meaning. `run_recbole` finds both by name after
`register()`.

RecBole's own Trainer opens a tensorboard writer, makes folders in the working directory, names checkpoints by the second
and rounds metrics to four digits before it compares them; its constructor is not called here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fedvlr_plugin.evaluation.best_round import BestRound
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.training import Fitted
from fedvlr_plugin.federation.training import fit as fit_rounds
from fedvlr_plugin.integrations.recbole.model import FedVLR
from fedvlr_plugin.integrations.recbole.settings import refuse_unknown

from recbole.config import Config  # isort: skip
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader  # isort: skip
import itertools
import os
from collections.abc import Iterator
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.centralized.training import Plan
from fedvlr_plugin.centralized.training import fit as fit_epochs
from fedvlr_plugin.data.recbole.config import OWN_KEYS, given_keys, known_keys
from fedvlr_plugin.errors import ConfigError

from recbole.evaluator import Collector, Evaluator  # isort: skip
from recbole.trainer import Trainer  # isort: skip
from recbole.utils import WandbLogger  # isort: skip


_COUNTER = itertools.count(1)
UNROUNDED = 12
FEDERATED_KEYS = OWN_KEYS - {"data_root", "keep_duplicates", "encoding", "protocol", "device"}


class _Collector(Collector):
    """RecBole's collector; its own fails for ItemCoverage and its kin, which need counts that are no tensors."""

    def get_data_struct(self) -> Any:
        held = self.data_struct._data_dict
        counts = {name: value for name, value in held.items() if not torch.is_tensor(value)}
        for name in counts:
            del held[name]
        struct = super().get_data_struct()
        for name, value in counts.items():
            held[name] = value
            struct.set(name, value)
        return struct


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
        self.eval_collector = _Collector(config)
        places = config["metric_decimal_place"]
        self.places: int | None = places if "metric_decimal_place" in given_keys(config) else None
        config["metric_decimal_place"] = UNROUNDED  # read by the evaluator when it is made
        self.evaluator = Evaluator(config)
        config["metric_decimal_place"] = places
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
        return self.rounded(self.measured(eval_data, show_progress))

    def measured(self, eval_data: FullSortEvalDataLoader, show_progress: bool = False) -> dict[str, float]:
        """Unrounded metrics of the parameters in force."""
        result: dict[str, float] = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        return result

    def rounded(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics to report, in as many decimal places as the user asked for by `metric_decimal_place`."""
        return {name: value if self.places is None else round(value, self.places) for name, value in metrics.items()}

    def resume_checkpoint(self, resume_file: str) -> None:
        """Refused: these checkpoints have no optimizers to go on with; raises `ConfigError`."""
        raise ConfigError(
            f"training cannot go on from '{resume_file}': the checkpoints of {type(self).__name__} hold the best parameters, "
            "not the optimizers. evaluate(data, model_file=...) and load_data_and_model(...) score it; `fedvlr table2` with "
            "--checkpoint-every goes on after an interruption"
        )


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
            The best validation score by `valid_metric` as a fraction, and RecBole's metrics of that round.
        """
        federation, metric = self.model.federation, self.model.valid_metric
        digits = self.config["loss_decimal_place"] or 4
        self.eval_collector.data_collect(train_data)

        def report(record: RoundRecord) -> None:
            if record.valid is None:
                return
            score = record.valid[metric.key] / 100.0
            if verbose:
                loss = f"{record.train_loss:.{digits}f}"
                self.logger.info(f"round {record.round}: loss {loss}, valid {metric.key} {score:.6f}")
            if callback_fn is not None:
                callback_fn(record.round, score)

        def validate() -> dict[str, float]:
            ranks = rank_federation(federation, "valid")
            interactions = federation.data.interactions
            return {metric.key: 100.0 * metric.value(ranks, interactions), **summary(ranks)}

        self.fitted = fit_rounds(federation, validate, report, selected_by=metric.key)
        if saved:
            self.save()
        best = max(r.valid[metric.key] for r in self.fitted.records if r.valid is not None) / 100.0
        if valid_data is not None:
            self.best_valid_result = self.evaluate(valid_data, show_progress=show_progress)
        return best, self.best_valid_result or {}

    def measured(self, eval_data: FullSortEvalDataLoader, show_progress: bool = False) -> dict[str, float]:
        """Unrounded metrics; where the protocol has validation items compete at test, they do.

        RecBole masks them at test: they are taken out of the loader's history while it is read.
        """
        protocol = self.model.spec.protocol
        if protocol.mask_validation_at_test or eval_data._sampler.phase != "test":
            return super().measured(eval_data, show_progress)
        kept = eval_data.uid2history_item
        eval_data.uid2history_item = self._training_items(kept)
        try:
            return super().measured(eval_data, show_progress)
        finally:
            eval_data.uid2history_item = kept

    def _training_items(self, history: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """The history of each of RecBole's users, without validation items that are no training items."""
        interactions = self.model.federation.data.interactions
        only = history.copy()
        for user, items in enumerate(history):
            if items is None:
                continue
            first, last = interactions.train_indptr[user - 1 : user + 1]
            trained = torch.from_numpy(interactions.train_items[first:last] + 1)
            only[user] = items[torch.isin(items, trained)]
        return only

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
    """Trains a `CentralizedModel`; the model is left with the parameters of its best epoch.

    Raises:
        ConfigError: a key that nobody reads, a `valid_metric` that is not among the metrics, or another protocol.
    """

    def __init__(self, config: Config, model: Any) -> None:
        name = type(model).__name__
        refuse_unknown(config, name, known_keys(config) | OWN_KEYS | set(model.Params.model_fields))
        given = given_keys(config)
        if given.get("protocol") not in (None, "corrected"):
            raise ConfigError(
                f"protocol '{given['protocol']}' is of federated rows; {name} under RecBole is evaluated as RecBole does: "
                "leave it out"
            )
        unread = sorted(FEDERATED_KEYS & set(given) - set(model.Params.model_fields))
        if unread:
            getLogger().warning(f"{name} does not read {', '.join(unread)}, which are settings of FedVLR")
        super().__init__(config, model)

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
        names = {f"{m}@{k}".lower() for m in self.config["metrics"] for k in self.config["topk"]}
        names |= {m.lower() for m in self.config["metrics"]}
        if self.valid_metric not in names:
            raise ConfigError(
                f"valid_metric '{self.valid_metric}' is not among what is evaluated (metrics {self.config['metrics']}, topk "
                f"{self.config['topk']}); add it there, or choose one of them"
            )
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        best: BestRound[dict[str, float]] = BestRound()

        def validate() -> dict[str, float]:
            return self.measured(valid_data, show_progress)

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
        self.best_valid_result = self.rounded(best.state or {})
        if saved:
            self.save(f"seed{config['seed']}")
        return float("-inf") if best.score is None else best.score, self.best_valid_result
