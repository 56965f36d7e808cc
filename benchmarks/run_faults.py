#!/usr/bin/env python
"""What failing clients cost: runs what is missing at each level of faults and prints the table. See --help.

    python benchmarks/run_faults.py --datasets ku --rows FedAvg FedAvg+ours

The same as `fedvlr faults`. Written to RESULTS/tables/faults-<profile>-<data set>.
"""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_faults.py", output="faults"))
