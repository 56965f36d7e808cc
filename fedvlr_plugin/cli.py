"""The command `fedvlr`: one door to what the scripts do. Imports heavy modules only inside the commands."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Optional

import typer

import fedvlr_plugin

app = typer.Typer(
    help="Federated vision-language recommendation: tables, studies and data sets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--no-such-option"]}


@app.command()
def version() -> None:
    """Print the version of this package."""
    typer.echo(f"fedvlr-plugin {fedvlr_plugin.__version__}")


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


def _mount(name: str, module: str) -> None:
    """Adds the commands of another room under `name`, where that room has any."""
    parent, _, _ = module.rpartition(".")
    if find_spec(parent) is not None and find_spec(module) is not None:
        app.add_typer(import_module(module).app, name=name)


_mount("data", "fedvlr_plugin.data.cli")


def main() -> None:
    """Entry point of the command `fedvlr`."""
    app()


if __name__ == "__main__":
    main()
