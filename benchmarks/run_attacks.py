#!/usr/bin/env python
"""Attacks against a row and the robust rules against attacks: HR@50, NDCG@50 and the target's exposure. See --help.

    python benchmarks/run_attacks.py --dataset ku --row FedAvg+ours                     # profile quick
    python benchmarks/run_attacks.py --dataset ml --row FCF --attacks sign_flip --share 0.2 --scale 5 --seeds 3
    python benchmarks/run_attacks.py --dataset planted --profile smoke --rounds 5

The same as `fedvlr attacks`. Written to RESULTS/tables/attacks-<data set>-<row>-<profile>, means over seeds to -means.
"""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_attacks.py", output="attacks"))
