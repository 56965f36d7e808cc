#!/usr/bin/env python
"""Figure 3: every backbone with vision, text or the ID table left out. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="run_figure3.py", output="figure3"))
