"""A worker process for the tests: study_worker.py URL LOG METHOD SECONDS_PER_TRIAL; logs each trial it begins."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import optuna

from fedvlr_plugin.config import RunSpec, TrainingConfig
from fedvlr_plugin.search.space import space_of
from fedvlr_plugin.search.storage import open_storage
from fedvlr_plugin.search.study import Study, StudySpec

optuna.logging.set_verbosity(optuna.logging.ERROR)
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.fakes import fake_run, make_data  # noqa: E402


def main(url: str, log: str, method: str, pause: float) -> None:
    def runner(spec, execution=None, **kwargs):
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {spec.training.client_lr:g} {spec.training.server_lr_id:g}\n")
        time.sleep(pause)
        return fake_run(spec, execution, **kwargs)

    base = RunSpec(dataset="tiny", row="FedAvg", training=TrainingConfig(rounds=2))
    spec = StudySpec(base, space_of("FedAvg"), method, 12)
    selection = Study(spec, make_data(), open_storage(url, 1, 2), runner).work()
    print(selection.point, selection.tried)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
