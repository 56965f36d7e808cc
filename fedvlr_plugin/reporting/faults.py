"""The output `faults`: what failing clients cost, rows by shares of drop-outs and stragglers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.rows import parse_row, rows_with_fusion
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import with_faults
from fedvlr_plugin.reporting.grid import Grid, format_count, format_mean_sd
from fedvlr_plugin.reporting.output import FinishedRuns, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN
from fedvlr_plugin.reporting.results_table import Figure, build_table
from fedvlr_plugin.reporting.table_formats import markdown_grid, print_grid, write_grid

LEVELS = ((0.0, 0.0), (0.3, 0.1), (0.5, 0.2))  # shares of drop-outs, and of stragglers among the rest
NOT_STORED = "-"


def faults_grid(
    store: ResultsStore,
    specs: Sequence[RunSpec],
    levels: Sequence[tuple[float, float]] = LEVELS,
    fingerprints: Mapping[str, str] | None = None,
    profile: str = "",
) -> Grid:
    """Return HR@50 / NDCG@50 of every row at each level.

    Args:
        store: where the runs are.
        specs: the runs without faults, all on one data set and under one protocol.
        levels: pairs (share that drops out, share of the rest that answers too late).
        fingerprints: of the data that count, by data set; None = the version with most runs.
        profile: named in the note.
    """
    rows = list(dict.fromkeys(spec.row for spec in specs))
    columns = [_column(store, specs, level, fingerprints) for level in levels]
    seeds = len({spec.seed for spec in specs})
    note = (
        f"HR@50 / NDCG@50 on the test split of {specs[0].dataset} in percent, mean ± standard deviation over "
        f"{format_count(seeds, 'seed')}, profile {profile}, protocol {specs[0].protocol.name}. Stragglers are a share of "
        "those that did not drop out."
    )
    lines = tuple((row, *(column.get(row, NOT_STORED) for column in columns)) for row in rows)
    return Grid(("row", *(_heading(*level) for level in levels)), lines, (note,))


def faults_markdown(grid: Grid) -> str:
    """Return the table in Markdown, its numbers on the right."""
    return markdown_grid(grid, text_columns=("row",))


def _column(
    store: ResultsStore,
    specs: Sequence[RunSpec],
    level: tuple[float, float],
    fingerprints: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the cells of one level by row; rows of which nothing is stored are left out."""
    table = build_table(store, [with_faults(spec, *level) for spec in specs], fingerprints)
    return {
        row: f"{_format_figure(cell.figures['hr@50'])} / {_format_figure(cell.figures['ndcg@50'])}"
        for (row, _), cell in table.cells.items()
    }


def _format_figure(figure: Figure) -> str:
    return format_mean_sd(figure.mean, figure.sd)


def _heading(dropout: float, stragglers: float) -> str:
    if (dropout, stragglers) == (0.0, 0.0):
        return "no faults"
    return f"{dropout:.0%} drop out, {stragglers:.0%} too late"


def _rows() -> list[str]:
    """Return the first backbone plain, and the first one with routers."""
    return [rows_with_fusion("none")[0], rows_with_fusion("blfm")[0]]


def _check(rows: Sequence[str]) -> None:
    for row in rows:
        if parse_row(row).kind != "federated":
            raise ConfigError(
                f"row '{row}' has no clients that could fail; name federated rows, e.g. {', '.join(_rows())}"
            )


def _more(specs: Sequence[RunSpec], data: Mapping[str, PreparedData], noise: NoiseOptions) -> list[RunSpec]:
    for spec in specs:
        if spec.conditions.faults is not None:
            raise ConfigError("this table has levels of faults of its own; leave --dropout and --stragglers out")
    return [with_faults(spec, *level) for level in LEVELS[1:] for spec in specs]


def _finish(finished: FinishedRuns) -> None:
    for dataset in finished.datasets:
        specs = [spec for spec in finished.specs if spec.dataset == dataset]
        grid = faults_grid(finished.store, specs, LEVELS, finished.fingerprints, finished.profile)
        protocol = "" if finished.protocol == "corrected" else f"-{finished.protocol}"
        stem = finished.store.tables / f"faults-{finished.profile}{protocol}-{dataset}"
        print_grid(grid, finished.console)
        paths = write_grid(grid, stem, text_columns=("row",))
        finished.say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


FAULTS = RunsOutput(BUILT_IN["faults"].title, _rows, _finish, _check, _more, datasets=("ku",), searched=False)
