#!/usr/bin/env python
"""Table 4: every backbone without noise, with the paper's, and with a stated epsilon. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_table4.py", output="table4"))
