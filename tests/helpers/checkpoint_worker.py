"""Trains a row on toy data with a checkpoint each round; for tests that kill it. Arguments: row, folder, pause."""

import sys
import time
from pathlib import Path

from fedvlr_plugin.config import ExecutionConfig, RunSpec, TrainingConfig
from fedvlr_plugin.experiment.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.toy import make_toy  # noqa: E402


def main() -> None:
    row, folder, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    spec = RunSpec(dataset="toy", row=row, training=TrainingConfig(rounds=12, participation=0.7))
    print("begun", flush=True)
    result = run(
        spec,
        ExecutionConfig(checkpoint_every=1),
        data=make_toy(),
        on_round=lambda record: time.sleep(pause),
        checkpoint=folder / "c",
    )
    print([entry.train_loss for entry in result.curve], result.best_round, result.test.above.tolist())


if __name__ == "__main__":
    main()
