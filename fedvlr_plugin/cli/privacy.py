"""`fedvlr privacy`: a calculator. Any two of epsilon, noise multiplier and rounds give the third.

`fedvlr privacy audit` is benchmarks/run_privacy_audit.py. Heavy modules are imported inside the commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedvlr_plugin.cli.options import add_noise_options, noise_options
from fedvlr_plugin.errors import ConfigError, FedVLRError

app = typer.Typer(
    help="Epsilon, noise multiplier, rounds: any two give the third (Gaussian noise on a sum, one user added or removed).",
    no_args_is_help=True,
)
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--no-such-option"]}
Epsilon = Annotated[float, typer.Option(help="Promise of the whole run.")]
Noise = Annotated[float, typer.Option(help="z: the noise's standard deviation over the bound C of one upload.")]
Rounds = Annotated[int, typer.Option(help="Communication rounds.")]
Users = Annotated[Optional[int], typer.Option(help="U; delta is then a tenth of 1 / U.")]  # noqa: UP045 (typer 0.9)
Delta = Annotated[Optional[float], typer.Option(help="Of the promise; give it or --users.")]  # noqa: UP045 (typer 0.9)
Sampling = Annotated[float, typer.Option(help="q: probability that a user is drawn in a round.")]


@app.command()
def epsilon(
    noise_multiplier: Noise, rounds: Rounds, users: Users = None, delta: Delta = None, sampling: Sampling = 1.0
) -> None:
    """What a run promises: epsilon by privacy loss distributions, and by Renyi divergences as a check."""

    def answer() -> str:
        from fedvlr_plugin.privacy.accounting import Accountant

        used = _delta(users, delta)
        spent = Accountant(noise_multiplier, sampling, used, rounds)
        by_pld, by_rdp = spent.epsilon(rounds), spent.epsilon_rdp(rounds)
        return f"epsilon {by_pld:.4g} at delta {used:.3g} (by RDP: {by_rdp:.4g}); add or remove one user"

    _say(answer)


@app.command()
def noise(epsilon: Epsilon, rounds: Rounds, users: Users = None, delta: Delta = None, sampling: Sampling = 1.0) -> None:
    """The smallest noise multiplier that promises at most epsilon."""

    def answer() -> str:
        from fedvlr_plugin.privacy.accounting import epsilon_of, noise_for

        used = _delta(users, delta)
        z = noise_for(epsilon, rounds, used, sampling)
        return f"noise multiplier {z:g} (epsilon {epsilon_of(z, rounds, used, sampling):.4g} at delta {used:.3g})"

    _say(answer)


@app.command()
def rounds(
    epsilon: Epsilon, noise_multiplier: Noise, users: Users = None, delta: Delta = None, sampling: Sampling = 1.0
) -> None:
    """The most rounds that promise at most epsilon."""

    def answer() -> str:
        from fedvlr_plugin.privacy.accounting import epsilon_of, rounds_for

        used = _delta(users, delta)
        most = rounds_for(epsilon, noise_multiplier, used, sampling)
        return f"{most} rounds (epsilon {epsilon_of(noise_multiplier, most, used, sampling):.4g} at delta {used:.3g})"

    _say(answer)


@app.command(context_settings=PASS_ON)
def audit(context: typer.Context) -> None:
    """What a row's uplink gives away; the options are those of benchmarks/run_privacy_audit.py."""
    raise typer.Exit(main(context.args, prog="fedvlr privacy audit"))


def _delta(users: int | None, delta: float | None) -> float:
    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.privacy.guarantee import default_delta

    if (users is None) == (delta is None):
        raise ConfigError("give one of --delta and --users, e.g. --users 204")
    return default_delta(users) if users is not None else float(delta or 0.0)


def _say(answer: Callable[[], str]) -> None:
    """Prints an answer; an error of ours is one line on stderr and status 2."""
    try:
        typer.echo(answer())
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


DESCRIPTION = "What a row's uplink tells a curious server: who takes part, what is in a history, head and router."


def audit_parser(prog: str) -> argparse.ArgumentParser:
    """The options."""
    line = argparse.ArgumentParser(prog=prog, description=DESCRIPTION)
    line.add_argument("--dataset", default="ku")
    line.add_argument("--data-root", type=Path, help="folder of data sets; default: $FEDVLR_DATA, then ./data")
    line.add_argument("--row", default="FedAvg+ours", help="a federated row (default: FedAvg+ours)")
    line.add_argument("--profile", choices=("smoke", "quick", "paper"), default="quick", help="settings of the row")
    line.add_argument(
        "--rounds", type=int, default=20, help="rounds to look at; epsilon is for all of them (default: 20)"
    )
    line.add_argument("--seeds", type=int, default=1, help="runs, with the seeds 0 .. N-1 (default: 1)")
    line.add_argument(
        "--users", type=int, default=200, help="clients to audit at most, half of them left out of the sum"
    )
    line.add_argument("--results", type=Path, default=Path("results"), help="results folder; writes to its audit/")
    add_noise_options(line)
    return line


def main(argv: Sequence[str] | None = None, prog: str = "run_privacy_audit.py") -> int:
    """0, or 2 after one line on stderr, or 130 when interrupted (nothing is kept then)."""
    options = audit_parser(prog).parse_args(argv)
    try:
        _run_audit(options)
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


def _run_audit(options: argparse.Namespace) -> None:
    from rich.console import Console

    from fedvlr_plugin.audit.privacy_audit import trace
    from fedvlr_plugin.audit.results import Audit, member_line, sight_lines, write_audit
    from fedvlr_plugin.config import ExecutionConfig
    from fedvlr_plugin.data.recbole import loader as datasets
    from fedvlr_plugin.experiment.environment import environment
    from fedvlr_plugin.experiment.profiles import get_profile, spec_for
    from fedvlr_plugin.experiment.rows import parse_row
    from fedvlr_plugin.experiment.run import check_spec
    from fedvlr_plugin.experiment.variants import levels
    from fedvlr_plugin.files import check_writable
    from fedvlr_plugin.privacy.guarantee import default_delta
    from fedvlr_plugin.reporting.audit_tables import member_grid, sight_grid
    from fedvlr_plugin.reporting.grid import print_grid, write_grid

    for name in ("rounds", "seeds"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.adaptive_quantile is not None:
        raise ConfigError("the audit clips to a fixed bound; leave --adaptive-quantile out and give --clip C")
    row = parse_row(options.row)
    if row.kind != "federated":
        raise ConfigError(f"row '{row.name}' is not federated: nothing is sent that could be audited")
    noise = noise_options(options)
    folder = options.results / "audit"
    check_writable(folder)
    data = datasets.load(datasets.check(options.dataset, options.data_root), options.data_root)
    settings = {"rounds": options.rounds, "participation": 1.0}
    profile = get_profile(options.profile)
    specs = [spec_for(profile, data.name, row.name, seed, overrides=settings) for seed in range(options.seeds)]
    check_spec(specs[0], ExecutionConfig(), data.interactions.n_items)
    sights, members = [], []
    for level in levels(noise):
        traces = [trace(spec, level, data, options.users, _print_line) for spec in specs]
        sights += sight_lines(traces)
        members.append(member_line(traces))
    n_users = data.interactions.n_users
    audit = Audit(
        profile=profile.name,
        data_fingerprint=data.fingerprint,
        specs=tuple(specs),
        most_audited=min(options.users, n_users),
        clip=noise.clip,
        delta=(noise.delta or default_delta(n_users)) if "accounted" in noise.noise else None,
        sights=tuple(sights),
        members=tuple(members),
        environment=environment(),
    )
    stem = folder / f"{data.name}-{row.name}-{profile.name}"
    write_audit(audit, stem.with_name(stem.name + ".json"))
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for name, grid in (("seen", sight_grid(audit)), ("members", member_grid(audit))):
        print_grid(grid, console)
        write_grid(grid, stem.with_name(f"{stem.name}-{name}"))
    print(f"Written: '{stem}.json', and the tables '-seen' and '-members' beside it.")


def _print_line(line: str) -> None:
    print(line, flush=True)
