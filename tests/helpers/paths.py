"""Where the repository, its scripts and the programs that tests start as processes lie."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
BENCHMARKS = ROOT / "benchmarks"
FEDML_CONFIGS = ROOT / "fedml_configs"
