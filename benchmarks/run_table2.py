#!/usr/bin/env python
"""Table 2 on real data: runs what is missing in the results store and prints the table. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
