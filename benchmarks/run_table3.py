#!/usr/bin/env python
"""Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_table3.py", output="table3"))
