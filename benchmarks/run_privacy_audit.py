#!/usr/bin/env python
"""What a row's uplink gives away, without noise, with the paper's, and with a stated epsilon. See --help.

    python benchmarks/run_privacy_audit.py --dataset ku --row FedAvg+ours                  # profile quick, 20 rounds
    python benchmarks/run_privacy_audit.py --dataset ml --row FCF --epsilon 1 8 --seeds 2 --users 100
    python benchmarks/run_privacy_audit.py --dataset planted --profile smoke --rounds 3 --users 20

Written to RESULTS/audit: a JSON file, and two tables as Markdown, CSV and LaTeX. Means over clients only.
"""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.privacy import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
