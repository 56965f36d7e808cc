#!/usr/bin/env python
"""Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing. See --help."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import table3

if __name__ == "__main__":
    sys.exit(table3(sys.argv[1:]))
