"""`report.py` and `fedvlr report`: options in, one HTML file out. Returns the exit status. Imports `report` late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedvlr_plugin.errors import FedVLRError


def main(argv: Sequence[str], prog: str = "report.py") -> int:
    """Writes the page; 0, or 2 with one line on stderr if it cannot be made."""
    parser = argparse.ArgumentParser(prog=prog, description="One self-contained HTML page about a results folder.")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RESULTS/report.html")
    options = parser.parse_args(list(argv))
    output = options.output or options.results / "report.html"
    from fedvlr_plugin.benchmark.report import build_report
    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.files import write_atomic

    try:
        write_atomic(output, build_report(ResultsStore(options.results)).encode())
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Written: '{output}'.")
    return 0
