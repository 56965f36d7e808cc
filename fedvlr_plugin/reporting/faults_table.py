"""What failing clients cost: rows by shares of drop-outs and stragglers, from the results store."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from fedvlr_plugin.experiment.profiles import get_profile, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import with_faults
from fedvlr_plugin.reporting.results_table import Figure, build_table

LEVELS = ((0.0, 0.0), (0.3, 0.1), (0.5, 0.2))
Levels = Sequence[tuple[float, float]]


def fault_table(
    store: ResultsStore, profile: str, dataset: str, rows: Sequence[str], seeds: int, levels: Levels = LEVELS
) -> str:
    """HR@50 and NDCG@50 of rows at each level (dropout, stragglers), in Markdown; `-` where nothing is stored."""
    columns = [_column(store, profile, dataset, rows, seeds, level) for level in levels]
    headers = ["row", *(_heading(*level) for level in levels)]
    body = [[row, *(column.get(row, "-") for column in columns)] for row in rows]
    note = (
        f"HR@50 / NDCG@50 on the test split of {dataset} in percent, mean ± standard deviation over {seeds} seeds, "
        f"profile {profile}, protocol corrected. Stragglers are a share of those that did not drop out."
    )
    align = ("left", *["right"] * len(levels))
    return f"{tabulate(body, headers, tablefmt='pipe', colalign=align, disable_numparse=True)}\n\n{note}\n"


def _column(
    store: ResultsStore, profile: str, dataset: str, rows: Sequence[str], seeds: int, level: tuple[float, float]
) -> dict[str, str]:
    specs = [with_faults(spec, *level) for spec in specs_for(get_profile(profile), [dataset], rows, seeds)]
    table = build_table(store, specs, None, profile, list(rows), [dataset])
    return {
        row: f"{_number(cell.figures['hr@50'])} / {_number(cell.figures['ndcg@50'])}"
        for (row, _), cell in table.cells.items()
    }


def _number(figure: Figure) -> str:
    return f"{figure.mean:.2f}" + ("" if figure.sd is None else f" ± {figure.sd:.2f}")


def _heading(dropout: float, stragglers: float) -> str:
    if (dropout, stragglers) == (0.0, 0.0):
        return "no faults"
    return f"{dropout:.0%} drop out, {stragglers:.0%} too late"
