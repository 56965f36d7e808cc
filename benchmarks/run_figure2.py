#!/usr/bin/env python
"""Figure 2: router weights by user activity, heterogeneity and accuracy. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_figure2.py", output="figure2"))
