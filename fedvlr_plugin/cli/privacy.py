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

from fedvlr_plugin.cli.arguments import NOISE_ARGUMENTS, PROFILES, OneLineParser, add_noise_options, make_noise_options
from fedvlr_plugin.errors import ConfigError, FedVLRError

app = typer.Typer(
    help="Epsilon, noise multiplier, rounds: any two give the third (Gaussian noise on a sum, one user added or removed).",
    no_args_is_help=True,
)
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--no-such-option"]}
Epsilon = Annotated[float, typer.Option(help="Promise of the whole run.", show_default=False)]
Noise = Annotated[
    float, typer.Option(help="z: the noise's standard deviation over the bound C of one upload.", show_default=False)
]
Rounds = Annotated[int, typer.Option(help="Communication rounds.", show_default=False)]
MaybeInt = Optional[int]  # noqa: UP045 (typer 0.9)
MaybeFloat = Optional[float]  # noqa: UP045 (typer 0.9)
Users = Annotated[
    MaybeInt, typer.Option(help="Number of users; delta is then a tenth of 1 / users.", show_default=False)
]
Delta = Annotated[
    MaybeFloat, typer.Option(help="Probability that the promise fails; give it or --users.", show_default=False)
]
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
    """Audit what a row's uplink gives away."""
    raise typer.Exit(main(context.args, prog="fedvlr privacy audit"))


def _delta(users: int | None, delta: float | None) -> float:
    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.privacy.guarantee import default_delta

    if (users is None) == (delta is None):
        raise ConfigError("give one of --delta and --users, e.g. --users 204")
    return default_delta(users) if users is not None else float(delta or 0.0)


def _say(answer: Callable[[], str]) -> None:
    """Print an answer; an error of ours is one line on stderr and status 2."""
    try:
        typer.echo(answer())
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


AUDIT_WIDTH = 200  # columns, where the output is a file or a pipe
DESCRIPTION = "What a row's uplink tells a curious server: who takes part, what is in a history, head and router."


def audit_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the audit's options; `prog` is the command."""
    parser = OneLineParser(prog, DESCRIPTION)
    add = parser.add_argument
    add("--dataset", default="ku", metavar="NAME", help="data set (default: %(default)s)")
    add(
        "--data-root",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder of data sets; default: $FEDVLR_DATA, then ./data",
    )
    add("--row", default="FedAvg+ours", help="a federated row (default: %(default)s)")
    add("--profile", choices=PROFILES, default="quick", help="settings of the row (default: %(default)s)")
    add(
        "--rounds",
        type=int,
        default=20,
        metavar="N",
        help="rounds to look at; epsilon is for all of them (default: %(default)s)",
    )
    add("--seeds", type=int, default=1, metavar="N", help="runs, with the seeds 0 .. N-1 (default: %(default)s)")
    add(
        "--users",
        type=int,
        default=200,
        metavar="N",
        help="clients to audit at most, half of them left out of the sum (default: %(default)s)",
    )
    add(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="results folder; the audit is written to its audit/ (default: %(default)s)",
    )
    add_noise_options(parser)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "run_privacy_audit.py") -> int:
    """Run the audit and write its tables.

    Args:
        argv: the words after the command; None = those of the process.
        prog: the command, for messages.

    Returns:
        0, or 2 after one line on stderr, or 130 when interrupted (nothing is kept then).
    """
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
    from fedvlr_plugin.audit.privacy_audit import trace
    from fedvlr_plugin.audit.results import Audit, member_line, sight_lines, write_audit
    from fedvlr_plugin.config import ExecutionConfig
    from fedvlr_plugin.data.recbole import loader as datasets
    from fedvlr_plugin.experiment.environment import environment
    from fedvlr_plugin.experiment.profiles import get_profile, spec_for
    from fedvlr_plugin.experiment.rows import parse_row
    from fedvlr_plugin.experiment.run import check_spec
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.experiment.variants import levels
    from fedvlr_plugin.files import check_writable
    from fedvlr_plugin.privacy.guarantee import default_delta
    from fedvlr_plugin.reporting.audit_tables import member_grid, sight_grid
    from fedvlr_plugin.reporting.table_formats import print_grid, terminal, write_grid

    for name in ("rounds", "seeds"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    given = {name: value for name, value in vars(options).items() if name in NOISE_ARGUMENTS}
    noise = make_noise_options(given, options.profile)
    if noise.adaptive_quantile is not None:
        raise ConfigError("the audit clips to a fixed bound; leave --adaptive-quantile out and give --clip C")
    row = parse_row(options.row)
    if row.kind != "federated":
        raise ConfigError(f"row '{row.name}' is not federated: nothing is sent that could be audited")
    store = ResultsStore(options.results)
    check_writable(store.audit)
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
    path = store.audit_path(data.name, row.name, profile.name)
    write_audit(audit, path)
    console = terminal(AUDIT_WIDTH)
    for name, grid in (("seen", sight_grid(audit)), ("members", member_grid(audit))):
        print_grid(grid, console)
        write_grid(grid, path.with_name(f"{path.stem}-{name}"))
    print(f"Written: '{path}', and the tables '-seen' and '-members' beside it.")


def _print_line(line: str) -> None:
    print(line, flush=True)
