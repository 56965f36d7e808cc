"""The command `fedvlr`: one door to what the scripts do. Imports heavy modules only inside the commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedvlr_plugin.command_names import NearestNames
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.versions import version_lines

if TYPE_CHECKING:
    from fedvlr_plugin.benchmark.grids import Grid

app = typer.Typer(
    cls=NearestNames,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--no-such-option"]}


def _show_version(asked: bool) -> None:
    """For `--version`, which ends the command before anything heavy is imported."""
    if asked:
        for line in version_lines():
            typer.echo(line)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit."),
    ] = False,
) -> None:
    """Federated vision-language recommendation: tables, studies and data sets."""


@app.command()
def version() -> None:
    """Print the version of this package, and of torch, RecBole and FedML where they are installed."""
    _show_version(True)


@app.command()
def doctor(
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of data sets.")] = None,  # noqa: UP045 (typer 0.9)
) -> None:
    """Show versions, shims, devices and data sets; exit with 1 if something needed is missing."""
    from fedvlr_plugin.doctor import examine

    findings = examine(data_root)
    for finding in findings:
        typer.echo(f"{'PROBLEM  ' if finding.problem else 'ok       '}{finding.text}")
    raise typer.Exit(1 if any(finding.problem for finding in findings) else 0)


@app.command(context_settings=PASS_ON)
def table2(context: typer.Context) -> None:
    """Fill in and print Table 2; the options are those of benchmarks/run_table2.py (try: fedvlr table2 --help)."""
    from fedvlr_plugin.benchmark.command import main as run_table2

    raise typer.Exit(run_table2(context.args, prog="fedvlr table2"))


@app.command(context_settings=PASS_ON)
def table3(context: typer.Context) -> None:
    """Count client parameters beside Table 3; options: --datasets NAME ..., --csv FILE. Trains nothing."""
    from fedvlr_plugin.benchmark.table3_command import main as run

    raise typer.Exit(run(context.args, prog="fedvlr table3"))


@app.command(context_settings=PASS_ON)
def table4(context: typer.Context) -> None:
    """Fill in and print Table 4 (noise and privacy); the options are those of benchmarks/run_table4.py."""
    from fedvlr_plugin.benchmark.command import main as run

    raise typer.Exit(run(context.args, prog="fedvlr table4", product="table4"))


@app.command(context_settings=PASS_ON)
def figure2(context: typer.Context) -> None:
    """Draw router weights by user activity; the options are those of benchmarks/run_figure2.py."""
    from fedvlr_plugin.benchmark.command import main as run

    raise typer.Exit(run(context.args, prog="fedvlr figure2", product="figure2"))


@app.command(context_settings=PASS_ON)
def figure3(context: typer.Context) -> None:
    """Leave out a modality or the ID table; the options are those of benchmarks/run_figure3.py."""
    from fedvlr_plugin.benchmark.command import main as run

    raise typer.Exit(run(context.args, prog="fedvlr figure3", product="figure3"))


@app.command(context_settings=PASS_ON)
def report(context: typer.Context) -> None:
    """Write one self-contained HTML page about a results folder; options: --results DIR, --output FILE."""
    from fedvlr_plugin.benchmark.report_command import main as write_report

    raise typer.Exit(write_report(context.args, prog="fedvlr report"))


@app.command()
def rank(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    profile: Annotated[str, typer.Option(help="Profile of the runs.")] = "quick",
    protocol: Annotated[str, typer.Option(help="corrected or as_released.")] = "corrected",
) -> None:
    """Mean rank of every row over the data sets, with Nemenyi's critical difference."""

    def show() -> None:
        from fedvlr_plugin.benchmark.overall import rank_grid
        from fedvlr_plugin.benchmark.rebuild import stored_table
        from fedvlr_plugin.benchmark.store import ResultsStore

        _print(rank_grid(stored_table(ResultsStore(results), profile, protocol)))

    _guarded(show)


@app.command()
def compare(one: Path, two: Path) -> None:
    """Two results folders side by side: difference of every cell they share, tested over users."""

    def show() -> None:
        from fedvlr_plugin.benchmark.overall import compare_stores
        from fedvlr_plugin.benchmark.store import ResultsStore

        _print(compare_stores(ResultsStore(one), ResultsStore(two)))

    _guarded(show)


def _print(grid: Grid) -> None:
    from fedvlr_plugin.benchmark.grids import print_grid, terminal

    print_grid(grid, terminal())


def _guarded(show: Callable[[], None]) -> None:
    """Runs a command; an error of ours is one line on stderr and status 2."""
    try:
        show()
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _mount(name: str, module: str) -> None:
    """Adds the commands of another room under `name`, where that room has any."""
    parent, _, _ = module.rpartition(".")
    if find_spec(parent) is not None and find_spec(module) is not None:
        app.add_typer(import_module(module).app, name=name, cls=NearestNames)


_mount("data", "fedvlr_plugin.data.cli")
_mount("fedml", "fedvlr_plugin.integrations.fedml.cli")
_mount("privacy", "fedvlr_plugin.privacy.cli")


def main() -> None:
    """Entry point of the command `fedvlr`."""
    app()


if __name__ == "__main__":
    main()
