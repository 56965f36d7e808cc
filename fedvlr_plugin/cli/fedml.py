"""`fedvlr fedml ...`: one process, a GRPC server with its clients, and the configurations to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedvlr_plugin.errors import ConfigError, FedVLRError

app = typer.Typer(help="Run inside FedML.", no_args_is_help=True, add_completion=False)
MaybeInt = Optional[int]  # noqa: UP045 (typer 0.9)
MaybePath = Optional[Path]  # noqa: UP045
MaybeList = Optional[list[str]]  # noqa: UP045
SetOption = Annotated[MaybeList, typer.Option("--set", help="An option, name=value (YAML).", show_default=False)]
ConfigOption = Annotated[
    MaybePath, typer.Option("--cf", help="FedML configuration; default: the shipped one.", show_default=False)
]
ClientsOption = Annotated[
    MaybeInt, typer.Option(help="Number of client processes; default: that of the configuration.", show_default=False)
]


@app.command()
def up(
    clients: ClientsOption = None,
    config: ConfigOption = None,
    folder: Annotated[
        Path, typer.Option(help="Folder of the run; a run with a checkpoint in it goes on from there.")
    ] = Path("fedml_run"),
    timeout: Annotated[float, typer.Option(help="Seconds after which everything is stopped.")] = 3600.0,
    options: SetOption = None,
) -> None:
    """Start a GRPC server and its clients on this machine, and wait for their end."""
    from fedvlr_plugin.integrations.fedml.launcher import up as launch

    try:
        ended = launch(config or _shipped("cross_silo_grpc"), folder, clients, timeout, _options(options), typer.echo)
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from the last finished round in '{folder}'", err=True)
        raise typer.Exit(130) from None
    typer.echo(ended.summary + (f"; clients that died: {list(ended.died)}" if ended.died else ""))


@app.command()
def run(
    config: ConfigOption = None,
    folder: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("fedml_run"),
    options: SetOption = None,
) -> None:
    """Run all users in this process behind FedMLRunner."""
    from fedvlr_plugin.integrations.fedml.single_process import run_single

    try:
        run_single(config or _shipped("single_process"), folder, _options(options), typer.echo)
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def configs() -> None:
    """Print the folder of shipped configurations, and the command for MPI."""
    from fedvlr_plugin.config_files import config_folder

    folder = config_folder("fedml_configs")
    for path in sorted(folder.iterdir()):
        typer.echo(str(path))
    typer.echo(
        f"MPI: mpirun --oversubscribe -n 3 {sys.executable} -m fedvlr_plugin.integrations.fedml.mpi "
        f"--cf {folder / 'cross_silo_mpi.yaml'}"
    )


def _shipped(name: str) -> Path:
    from fedvlr_plugin.config_files import config_folder

    return config_folder("fedml_configs") / f"{name}.yaml"


def _options(given: list[str] | None) -> dict[str, object]:
    from fedvlr_plugin.integrations.fedml.launcher import parse_yaml

    out: dict[str, object] = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {text}: name=value is needed, e.g. --set comm_round=5")
        out[name] = parse_yaml(value, f"--set {text}: the value")
    return out
