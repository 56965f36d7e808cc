"""The command `fedvlr` and its sub-commands. Heavy modules are imported inside the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import click
import typer
from typer.core import TyperGroup

from fedvlr_plugin.cli import data, fedml, privacy
from fedvlr_plugin.errors import FedVLRError, did_you_mean
from fedvlr_plugin.versions import version_lines

if TYPE_CHECKING:
    from fedvlr_plugin.reporting.grid import Grid


class NearestNames(TyperGroup):
    """Give it to `typer.Typer(cls=...)` or `add_typer(..., cls=...)`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; click's usage error names the nearest one and all of them."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            known = self.list_commands(ctx)
            error.message = f"{error.message}{did_you_mean(args[0], known)} There are: {', '.join(known)}."
            raise


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
    from fedvlr_plugin.cli.doctor import examine

    findings = examine(data_root)
    for finding in findings:
        typer.echo(f"{'PROBLEM  ' if finding.problem else 'ok       '}{finding.text}")
    raise typer.Exit(1 if any(finding.problem for finding in findings) else 0)


@app.command(context_settings=PASS_ON)
def table2(context: typer.Context) -> None:
    """Fill in and print Table 2; the options are those of benchmarks/run_table2.py (try: fedvlr table2 --help)."""
    from fedvlr_plugin.cli.tables import main as run_table2

    raise typer.Exit(run_table2(context.args, prog="fedvlr table2"))


@app.command(context_settings=PASS_ON)
def table3(context: typer.Context) -> None:
    """Count client parameters beside Table 3; options: --datasets NAME ..., --csv FILE. Trains nothing."""
    from fedvlr_plugin.cli.tables import table3 as run

    raise typer.Exit(run(context.args, prog="fedvlr table3"))


@app.command(context_settings=PASS_ON)
def table4(context: typer.Context) -> None:
    """Fill in and print Table 4 (noise and privacy); the options are those of benchmarks/run_table4.py."""
    from fedvlr_plugin.cli.tables import main as run

    raise typer.Exit(run(context.args, prog="fedvlr table4", product="table4"))


@app.command(context_settings=PASS_ON)
def figure2(context: typer.Context) -> None:
    """Draw router weights by user activity; the options are those of benchmarks/run_figure2.py."""
    from fedvlr_plugin.cli.tables import main as run

    raise typer.Exit(run(context.args, prog="fedvlr figure2", product="figure2"))


@app.command(context_settings=PASS_ON)
def figure3(context: typer.Context) -> None:
    """Leave out a modality or the ID table; the options are those of benchmarks/run_figure3.py."""
    from fedvlr_plugin.cli.tables import main as run

    raise typer.Exit(run(context.args, prog="fedvlr figure3", product="figure3"))


@app.command(context_settings=PASS_ON)
def report(context: typer.Context) -> None:
    """Write one self-contained HTML page about a results folder; options: --results DIR, --output FILE."""
    from fedvlr_plugin.cli.tables import report as write_report

    raise typer.Exit(write_report(context.args, prog="fedvlr report"))


@app.command()
def rank(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    profile: Annotated[str, typer.Option(help="Profile of the runs.")] = "quick",
    protocol: Annotated[str, typer.Option(help="corrected or as_released.")] = "corrected",
) -> None:
    """Mean rank of every row over the data sets, with Nemenyi's critical difference."""

    def show() -> None:
        from fedvlr_plugin.experiment.store import ResultsStore
        from fedvlr_plugin.reporting.mean_ranks import rank_grid
        from fedvlr_plugin.reporting.stored_runs import stored_table

        _print(rank_grid(stored_table(ResultsStore(results), profile, protocol)))

    _guarded(show)


@app.command()
def compare(one: Path, two: Path) -> None:
    """Two results folders side by side: difference of every cell they share, tested over users."""

    def show() -> None:
        from fedvlr_plugin.experiment.store import ResultsStore
        from fedvlr_plugin.reporting.mean_ranks import compare_stores

        _print(compare_stores(ResultsStore(one), ResultsStore(two)))

    _guarded(show)


def _print(grid: Grid) -> None:
    from fedvlr_plugin.reporting.grid import print_grid, terminal

    print_grid(grid, terminal())


def _guarded(show: Callable[[], None]) -> None:
    """Runs a command; an error of ours is one line on stderr and status 2."""
    try:
        show()
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


for _name, _group in (("data", data.app), ("fedml", fedml.app), ("privacy", privacy.app)):
    app.add_typer(_group, name=_name, cls=NearestNames)


def main() -> None:
    """Entry point of the command `fedvlr`."""
    app()


if __name__ == "__main__":
    main()
