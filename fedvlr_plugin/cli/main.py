"""The command `fedvlr` and its sub-commands. Heavy modules are imported inside the commands.

Tables and figures come from the registry of outputs, so that one of an installed package has a sub-command of its own;
`--help` reads its name without importing it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import click
import typer
from typer.core import TyperCommand, TyperGroup

from fedvlr_plugin.cli import data, fedml, privacy
from fedvlr_plugin.errors import FedVLRError, did_you_mean
from fedvlr_plugin.reporting import outputs
from fedvlr_plugin.streams import replace_unwritable_characters
from fedvlr_plugin.threads import let_threads_sleep
from fedvlr_plugin.versions import version_lines

if TYPE_CHECKING:
    from fedvlr_plugin.reporting.grid import Grid


PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--no-such-option"]}


class NearestNames(TyperGroup):
    """Sub-commands that answer an unknown name with the nearest one.

    Give it to `typer.Typer(cls=...)` or `add_typer(..., cls=...)`.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` begin with; click's usage error names the nearest one and all of them."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            known = self.list_commands(ctx)
            error.message = f"{error.message}{did_you_mean(args[0], known)} There are: {', '.join(known)}."
            raise


class WithOutputs(NearestNames):
    """The sub-commands written here, and one for every table and figure, those of installed packages included."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the outputs, then those of the other commands."""
        others = super().list_commands(ctx)
        return [*(name for name in outputs.summaries() if name not in others), *others]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command written here, or that of an output; None where there is neither."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        summary = outputs.summaries().get(cmd_name)
        return None if summary is None else _output_command(cmd_name, summary)


def _output_command(name: str, summary: str) -> click.Command:
    """Return the sub-command of an output; its options are parsed, and the output imported, when it is called."""

    def run(context: click.Context) -> None:
        from fedvlr_plugin.cli.tables import main as show

        raise typer.Exit(show(context.args, prog=f"fedvlr {name}", output=name))

    return TyperCommand(
        name, callback=click.pass_context(run), help=summary, context_settings=PASS_ON, add_help_option=False
    )


app = typer.Typer(
    cls=WithOutputs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    """End the command after the versions, where they are asked for; nothing heavy is imported."""
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


DATA_ROOT = typer.Option(help="Folder of data sets; default: $FEDVLR_DATA, then ./data.", show_default=False)


@app.command()
def doctor(
    data_root: Annotated[Optional[Path], DATA_ROOT] = None,  # noqa: UP045 (typer 0.9)
) -> None:
    """Show versions, shims, devices and data sets; exit with 1 if something needed is missing."""
    from fedvlr_plugin.cli.doctor import examine

    findings = examine(data_root)
    for finding in findings:
        typer.echo(f"{'PROBLEM  ' if finding.problem else 'ok       '}{finding.text}")
    raise typer.Exit(1 if any(finding.problem for finding in findings) else 0)


@app.command("list")
def list_names(
    data_root: Annotated[Optional[Path], DATA_ROOT] = None,  # noqa: UP045 (typer 0.9)
) -> None:
    """List rows, backbones, views, rules, data sets, encoders and outputs, and the package that each is from."""
    from fedvlr_plugin.cli.listing import lines

    for line in lines(data_root):
        typer.echo(line)


@app.command(context_settings=PASS_ON)
def report(context: typer.Context) -> None:
    """Write one self-contained HTML page about a results folder."""
    from fedvlr_plugin.cli.tables import report as write_report

    raise typer.Exit(write_report(context.args, prog="fedvlr report"))


@app.command()
def rank(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    profile: Annotated[str, typer.Option(help="Profile of the runs.")] = "quick",
    protocol: Annotated[
        str, typer.Option(help="Evaluation protocol of the runs: corrected or as_released.")
    ] = "corrected",
) -> None:
    """Rank the rows: mean rank over the data sets, with Nemenyi's critical difference."""

    def show() -> None:
        from fedvlr_plugin.experiment.store import ResultsStore
        from fedvlr_plugin.reporting.mean_ranks import rank_grid
        from fedvlr_plugin.reporting.stored_runs import stored_table

        _print(rank_grid(stored_table(ResultsStore(results), profile, protocol)))

    _guarded(show)


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(help="Results folder A.", show_default=False)],
    two: Annotated[Path, typer.Argument(help="Results folder B.", show_default=False)],
) -> None:
    """Compare two results folders: the difference of every cell they share, tested over users."""

    def show() -> None:
        from fedvlr_plugin.experiment.store import ResultsStore
        from fedvlr_plugin.reporting.mean_ranks import compare_stores

        _print(compare_stores(ResultsStore(one), ResultsStore(two)))

    _guarded(show)


def _print(grid: Grid) -> None:
    from fedvlr_plugin.reporting.table_formats import print_grid, terminal

    print_grid(grid, terminal())


def _guarded(show: Callable[[], None]) -> None:
    """Run a command; an error of ours is one line on stderr and status 2."""
    try:
        show()
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


for _name, _group in (("data", data.app), ("fedml", fedml.app), ("privacy", privacy.app)):
    app.add_typer(_group, name=_name, cls=NearestNames)


def main() -> None:
    """Entry point of the command `fedvlr`."""
    let_threads_sleep()
    replace_unwritable_characters()
    app()


if __name__ == "__main__":
    main()
