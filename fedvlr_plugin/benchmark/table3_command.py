"""`run_table3.py` and `fedvlr table3`: client parameters, the paper's beside the closed form and a live client's.

Trains nothing. Heavy modules are imported after the options are parsed. Imports `table3`, `paper`, `files`.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import FedVLRError, unknown_name

if TYPE_CHECKING:
    from fedvlr_plugin.benchmark.table3 import Cell

HEAD = ["row", "data set", "paper K", "closed form", "agreement", "private", "private item rows", "received", "sent",
        "down MB", "up MB"]  # fmt: skip
NOTE = """paper K: thousands of client parameters as printed in Table 3; closed form: spec of the paper's own counting.
private, private item rows (at most), received, sent: numbers counted from the tensors of one live client here
(float32; one broadcast and one full upload a round). FedNCF and VBPR count every user's vectors in the paper's form."""


def main(argv: Sequence[str], prog: str = "run_table3.py") -> int:
    """Prints the table; 0, or 2 with one line on stderr for a request that cannot be carried out."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing.",
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="of the paper's seven; default: all")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args(list(argv))
    from tabulate import tabulate

    from fedvlr_plugin.benchmark.table3 import table3
    from fedvlr_plugin.files import write_atomic
    from fedvlr_plugin.paper.tables import DATASETS

    try:
        chosen = [name.lower() for name in options.datasets or DATASETS]
        for name in chosen:
            if name not in DATASETS:
                raise unknown_name("data set", name, DATASETS)
        cells = [cell for cell in table3() if cell.dataset.lower() in chosen]
        body = [_line(cell) for cell in cells]
        if options.csv is not None:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([HEAD, *body])
            write_atomic(options.csv, text.getvalue().encode(), hint="Name a file that you may write with --csv FILE")
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(tabulate(body, headers=HEAD, disable_numparse=True))
    odd = [f"{c.row} on {c.dataset} ({c.verdict.removeprefix('ODD: ')})" for c in cells if c.verdict != "follows"]
    print(f"\n{len(cells) - len(odd)} of {len(cells)} cells follow the closed form. Odd: {'; '.join(odd) or 'none'}.")
    print(NOTE)
    return 0


def _line(cell: Cell) -> list[str]:
    """The cell as it is spelled in the table and in the CSV."""
    held = cell.held
    numbers = (held.private, held.own_rows, held.received, held.sent)
    sizes = (held.received_bytes, held.sent_bytes)
    return [
        cell.row,
        cell.dataset,
        str(cell.paper_thousands),
        f"{cell.closed_form:,}",
        cell.verdict,
        *(f"{number:,}" for number in numbers),
        *(f"{size / 2**20:.2f}" for size in sizes),
    ]
