"""What our RecBole trainers share: no tensorboard, no folder unless a checkpoint is asked for, nothing rounded.

RecBole's Trainer opens a tensorboard writer, makes folders in the working directory, names checkpoints by the second
and rounds metrics to four digits before it compares them; its constructor is not called here. Imports RecBole.
"""

from __future__ import annotations

import itertools
import os
from logging import getLogger
from pathlib import Path
from typing import Any

import torch

from fedvlr_plugin.data.recbole import config as _config  # noqa: F401  (prepares the host)

from recbole.config import Config  # isort: skip
from recbole.data.dataloader import FullSortEvalDataLoader  # isort: skip
from recbole.evaluator import Collector, Evaluator  # isort: skip
from recbole.trainer import Trainer  # isort: skip
from recbole.utils import WandbLogger  # isort: skip

_COUNTER = itertools.count(1)
UNROUNDED = 12


class QuietTrainer(Trainer):
    """Base of `FedVLRTrainer` and `CentralizedTrainer`: evaluation and checkpoints; `fit` is theirs."""

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
        """Writes a RecBole checkpoint (configuration, parameters) under a name of its own, in one step."""
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
        """RecBole's evaluator on the parameters in force (after `fit`, the best ones).

        With `model_file` that checkpoint's parameters are put in force first. It holds RecBole's Config as a pickle,
        so name only files that you trust.
        """
        if model_file is not None:
            checkpoint = torch.load(model_file, map_location=self.device, weights_only=False)
            self.model.load_state_dict(checkpoint["state_dict"])
        result: dict[str, float] = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        return result
