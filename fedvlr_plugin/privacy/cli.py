"""`fedvlr privacy`: a calculator. Any two of epsilon, noise multiplier and rounds give the third.

`fedvlr privacy audit` is benchmarks/run_privacy_audit.py. Imports `accounting` and `audit` inside the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Optional

import typer

from fedvlr_plugin.errors import FedVLRError

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
    from fedvlr_plugin.audit.command import main as run

    raise typer.Exit(run(context.args, prog="fedvlr privacy audit"))


def _delta(users: int | None, delta: float | None) -> float:
    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.privacy.promise import default_delta

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
