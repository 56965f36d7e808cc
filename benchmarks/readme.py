"""Writes the README's tables anew from the results store: python benchmarks/readme.py [README.md] [RESULTS]."""

from __future__ import annotations

import sys
from pathlib import Path

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.reporting.readme import refresh


def main(arguments: list[str]) -> int:
    """Returns 0, or 2 after one line on stderr."""
    file = Path(arguments[0] if arguments else "README.md")
    results = Path(arguments[1] if len(arguments) > 1 else "results/published")
    try:
        text = file.read_text(encoding="utf-8")
        write_atomic(file, refresh(text, ResultsStore(results)).encode())
    except (FedVLRError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
