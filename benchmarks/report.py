#!/usr/bin/env python
"""One self-contained HTML page about a results folder: python benchmarks/report.py [--results DIR] [--output FILE]."""

from __future__ import annotations

import sys

from fedvlr_plugin.cli.tables import report

if __name__ == "__main__":
    sys.exit(report(sys.argv[1:]))
