"""Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing.

python benchmarks/run_table3.py [--datasets ML KU] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from tabulate import tabulate

from fedvlr_plugin.benchmark.paper import DATASETS
from fedvlr_plugin.benchmark.table3 import table3
from fedvlr_plugin.errors import FedVLRError, unknown_name

HEAD = ["row", "data set", "paper K", "closed form", "agreement", "private", "private item rows", "received", "sent",
        "down MB", "up MB"]  # fmt: skip
NOTE = """paper K: thousands of client parameters as printed in Table 3; closed form: spec of the paper's own counting.
private, private item rows (at most), received, sent: numbers counted from the tensors of one live client here
(float32; one broadcast and one full upload a round). FedNCF and VBPR count every user's vectors in the paper's form."""


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), help="of the paper's seven")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    try:
        chosen = [name.lower() for name in options.datasets]
        for name in chosen:
            if name not in DATASETS:
                raise unknown_name("data set", name, DATASETS)
        cells = [cell for cell in table3() if cell.dataset.lower() in chosen]
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    body = []
    for cell in cells:
        h = cell.held
        numbers = [h.private, h.own_rows, h.received, h.sent]
        sizes = [f"{h.received_bytes / 2**20:.2f}", f"{h.sent_bytes / 2**20:.2f}"]
        form = f"{cell.closed_form:,}"
        body.append(
            [cell.row, cell.dataset, cell.paper_thousands, form, cell.verdict, *(f"{n:,}" for n in numbers), *sizes]
        )
    print(tabulate(body, headers=HEAD, disable_numparse=True))
    odd = [f"{c.row} on {c.dataset} ({c.verdict.removeprefix('ODD: ')})" for c in cells if c.verdict != "follows"]
    print(f"\n{len(cells) - len(odd)} of {len(cells)} cells follow the closed form. Odd: {'; '.join(odd) or 'none'}.")
    print(NOTE)
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([HEAD, *body])
    return 0


if __name__ == "__main__":
    sys.exit(main())
