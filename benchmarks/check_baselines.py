#!/usr/bin/env python
"""Our VBPR, BM3, MGCN and PGL against the reference implementations on KU: mean test HR@50 within ± 2.5 sd, else exit 1."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedvlr_plugin.centralized import reference_study as check
from fedvlr_plugin.errors import FedVLRError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs per model, at least 3 (default 3)")
    parser.add_argument("--models", nargs="+", default=check.MODELS, choices=check.MODELS)
    parser.add_argument("--data-root", type=Path, help="folder that holds ku/; default: $FEDVLR_DATA, then ./data")
    options = parser.parse_args()
    if options.seeds < 3:
        parser.error(f"--seeds must be at least 3, got {options.seeds}")
    data, rows = check.load(options.data_root)
    print(f"KU: {data.interactions.n_users} users, {data.interactions.n_items} items, {len(rows[0])} training rows")
    print(check.HEADER)
    agrees = True
    for model in options.models:
        outcome = check.compare(model, data, rows, options.seeds)
        agrees &= outcome.agrees
        print(check.line(outcome), flush=True)
    print("all within 2.5 sd of the study" if agrees else "at least one model is OUT of the study's 2.5 sd")
    return 0 if agrees else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FedVLRError as error:
        sys.exit(f"error: {error}")
