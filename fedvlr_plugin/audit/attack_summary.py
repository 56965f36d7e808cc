"""The attack bench in short: means over seeds, defences by attacks, from the bench's CSV file.

Imports `attack_bench` (the file's columns), `benchmark.grids`, `files`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from fedvlr_plugin.audit.attack_bench import HEAD
from fedvlr_plugin.benchmark.grids import Grid, Value
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.files import read_bytes

ROW, ATTACK, DEFENCE, SEED, _, HR, NDCG, EXPOSURE = range(len(HEAD))
NONE, PROMOTION = "none", "promotion"


def read_outcomes(path: Path) -> list[list[str]]:
    """The lines of a bench; raises `ResultsError` for a file that is not one."""
    lines = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8", "replace"))))
    if not lines or lines[0] != HEAD or any(len(line) != len(HEAD) for line in lines):
        raise ResultsError(f"'{path}' is not a table of the attack bench; run benchmarks/run_attacks.py again")
    return lines[1:]


def attack_grid(outcomes: Sequence[Sequence[str]]) -> Grid:
    """HR@50 / NDCG@50 of each defence under each attack, and the exposure of the target with nobody lying and under promotion.

    Raises `ResultsError` where a cell is no number.
    """
    attacks = list(dict.fromkeys(line[ATTACK] for line in outcomes))
    defences = list(dict.fromkeys(line[DEFENCE] for line in outcomes))
    exposed = [attack for attack in (NONE, PROMOTION) if attack in attacks]
    headings = ["defence", *("nobody lies" if a == NONE else a for a in attacks)]
    headings += [f"exposure, {'nobody lies' if a == NONE else a}" for a in exposed]
    body = []
    for defence in defences:
        cells: list[Value] = [_both(outcomes, attack, defence) for attack in attacks]
        body.append((defence, *cells, *(_cell(outcomes, attack, defence, EXPOSURE) for attack in exposed)))
    seeds = len({line[SEED] for line in outcomes})
    rows = " / ".join(dict.fromkeys(line[ROW] for line in outcomes))
    note = (
        f"HR@50 / NDCG@50 of {rows} on the test split in percent, mean ± standard deviation over {seeds} seed(s). Exposure: "
        "share of honest clients, not trained on the target, with it in their first 50, in percent."
    )
    return Grid(tuple(headings), tuple(body), (note,))


def _both(outcomes: Sequence[Sequence[str]], attack: str, defence: str) -> str | None:
    parts = [_cell(outcomes, attack, defence, column) for column in (HR, NDCG)]
    return None if parts[0] is None or parts[1] is None else f"{parts[0]} / {parts[1]}"


def _cell(outcomes: Sequence[Sequence[str]], attack: str, defence: str, column: int) -> str | None:
    try:
        found = [float(line[column]) for line in outcomes if (line[ATTACK], line[DEFENCE]) == (attack, defence)]
    except ValueError:
        raise ResultsError(f"the attack bench holds a figure that is no number ({attack}, {defence})") from None
    if not found:
        return None
    return f"{mean(found):.1f}" + (f" ± {stdev(found):.1f}" if len(found) > 1 else "")
