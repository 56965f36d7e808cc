#!/usr/bin/env python
"""Seconds per epoch of VBPR, BM3, MGCN and PGL on KU and ML, training and evaluation, beside MMRec's figures on KU.

Evaluation is one full-ranking pass over the validation users; on ML it must stay under half a second (exit 1 if not).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedvlr_plugin.centralized.model_registry import OURS
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.profiling.centralized import EVALUATION_LIMIT, HEADER, line, measure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["ku", "ml"])
    parser.add_argument("--models", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs, after one that is not (default 5)")
    parser.add_argument("--data-root", type=Path, help="folder of data sets; default: $FEDVLR_DATA, then ./data")
    options = parser.parse_args()
    print(HEADER)
    slow = []
    for dataset in options.datasets:
        data = prepare(dataset, options.data_root)
        for model in options.models:
            timing = measure(model, data, options.epochs)
            print(line(timing), flush=True)
            if data.name == "ml" and timing.evaluation > EVALUATION_LIMIT:
                slow.append(f"{model} {timing.evaluation:.2f} s")
    if slow:
        print(f"evaluation of ML over {EVALUATION_LIMIT} s: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FedVLRError as error:
        sys.exit(f"error: {error}")
