"""The command line of tables and figures: words in, `Options` out; complaints are one line.

Neither torch nor pydantic is imported before the command line makes sense, so that a typing error is answered at once.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fedvlr_plugin.errors import ConfigError

if TYPE_CHECKING:
    from fedvlr_plugin.cli.options import Options
    from fedvlr_plugin.experiment.noise_options import NoiseOptions

PROFILES = ("smoke", "quick", "paper")
NOISES = ("paper", "accounted")
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


class OneLineParser(argparse.ArgumentParser):
    """A parser that answers a typing error with one line, and takes the defaults in its help from a model.

    Only what was given stands in its result; `{default}` in a help text is filled in when help is asked for.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, argument_default=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        """Print the message on one line and exit with status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def format_help(self) -> str:
        """Return the help with the defaults of `Options` and `NoiseOptions` in it."""
        from fedvlr_plugin.cli.options import Options
        from fedvlr_plugin.experiment.noise_options import NoiseOptions

        fields = {**Options.model_fields, **NoiseOptions.model_fields, "epsilon": NoiseOptions.model_fields["epsilons"]}
        for action in self._actions:
            if action.help and "{default}" in action.help and action.dest in fields:
                action.help = action.help.replace("{default}", _format_default(fields[action.dest].default))
        return super().format_help()


def _format_default(value: object) -> str:
    """Return a default as a user would type it."""
    if isinstance(value, tuple):
        return " ".join(_format_default(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_options(
    argv: Sequence[str], prog: str = "run_table2.py", title: str = "Table 2", with_noise: bool = False
) -> Options:
    """Return what a command line asks for; exit with status 2 and one line on stderr if it makes no sense.

    Args:
        argv: the words after the command.
        prog: the command.
        title: names the table or figure in the help.
        with_noise: whether the options about noise belong to it.
    """
    parser = OneLineParser(
        prog,
        f"{title}: run what is missing in the results store, then show it from there.",
        "Stopped with Ctrl-C, or killed? The same command goes on where it was.",
    )
    add_run_options(parser, title)
    if with_noise:
        add_noise_options(parser)
    given = vars(parser.parse_args(list(argv)))
    try:
        settings = dict(_setting(text) for text in given.pop("set", []))
    except ConfigError as error:
        parser.error(str(error))
    noise = {name: given.pop(name) for name in NOISE_ARGUMENTS if name in given}
    from fedvlr_plugin.cli.options import Options
    from fedvlr_plugin.config import build_config

    try:
        profile = given.get("profile", Options.model_fields["profile"].default)
        return build_config(Options, {**given, "settings": settings, "noise": make_noise_options(noise, profile)})
    except ConfigError as error:
        parser.error(str(error))


def add_run_options(parser: argparse.ArgumentParser, title: str) -> None:
    """Add the options about runs; `title` names the table or figure."""
    add = parser.add_argument
    add(
        "--datasets",
        nargs="+",
        metavar="NAME",
        help="data sets; default: all under the data root, and ml-100k; of Table 4 KU and ML",
    )
    add(
        "--rows",
        nargs="+",
        metavar="ROW",
        help=f"rows, e.g. FedAvg FedAvg+ours VBPR popularity; default: all of {title}",
    )
    add("--profile", choices=PROFILES, help="how much to spend (default: {default})")
    add("--seeds", type=_positive, metavar="N", help="runs per cell, with the seeds 0 .. N-1; default: the profile's")
    add("--protocol", choices=("corrected", "as_released"), help="rules of the evaluation (default: {default})")
    add("--data-root", type=Path, metavar="DIR", help="folder of data sets; default: $FEDVLR_DATA, then ./data")
    add("--results", type=Path, metavar="DIR", help="results store (default: {default})")
    add("--device", metavar="cpu|cuda", help="where to compute (default: {default})")
    add(
        "--engine",
        choices=("batched", "sequential"),
        help="how clients are computed: many at once or one by one (default: {default})",
    )
    add(
        "--memory-budget",
        type=_bytes,
        metavar="SIZE",
        help="memory for private item vectors, e.g. 2G; default: as needed",
    )
    add(
        "--keep",
        nargs="+",
        choices=("router_weights",),
        help="private results to store beside the ranks (default: none; figure 2 keeps router_weights by itself)",
    )
    add(
        "--overwrite",
        choices=("only-missing", "always", "never"),
        help="only-missing: compute what is not stored; always: compute all, replace what is stored; "
        "never: refuse to start if any of it is stored (default: {default})",
    )
    add(
        "--checkpoint-every",
        type=_positive,
        metavar="N",
        help="save federated runs each N rounds under RESULTS/checkpoints, to go on from there when killed; such a file "
        "holds the clients' private state and is removed when its run is finished (default: a killed run starts anew)",
    )
    add(
        "--dropout",
        type=_share,
        metavar="R",
        help="share of the cohort that fails before it trains (default: {default})",
    )
    add(
        "--stragglers",
        type=_share,
        metavar="R",
        help="share of the rest that trains but answers too late to count (default: {default})",
    )
    add(
        "--control",
        choices=("none", "shuffled"),
        help="shuffled: run every row that uses item features a second time, each item with the features of another one "
        "(Table 2; default: {default})",
    )
    add(
        "--set", nargs="+", metavar="KEY=VALUE", help="settings over the profile's, e.g. client_lr=0.01 (default: none)"
    )
    add("--dry-run", action="store_true", help="say what would be done and what it would cost, and stop")
    add(
        "--stored",
        action="store_true",
        help="run nothing: show what the results store holds of this profile and protocol (needs no data)",
    )
    add(
        "--search",
        choices=("none", "grid", "tpe"),
        help="how each cell's parameters are chosen, by validation NDCG@50; default: the profile's (paper: grid for the "
        "deciding cells, tpe for the rest; smoke and quick: none)",
    )
    add("--trials", type=_positive, metavar="N", help="trials per cell of a tpe search; default: the profile's")
    add(
        "--storage",
        metavar="URL",
        help="database of the searches; default: sqlite:///RESULTS/studies.db. With a PostgreSQL or MySQL URL any number "
        "of machines that are given the same command share the work",
    )
    add("--pruning", action="store_true", help="let searches give up trials with a poor learning curve (default: no)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share between 0 and 1")
    return value


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), flags=re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; write e.g. 500M or 2G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise ConfigError(f"argument --set: '{text}' is not of the form KEY=VALUE, e.g. client_lr=0.01")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


NOISE_ARGUMENTS = ("noise", "epsilon", "delta", "clip", "adaptive_quantile", "noise_scale")


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about noise to a parser; `make_noise_options` takes what was given."""
    add = parser.add_argument_group("noise").add_argument
    add(
        "--noise",
        nargs="+",
        choices=NOISES,
        help="paper: on gradients that are not clipped, promises nothing; accounted: clipped, with an epsilon "
        "(default: {default})",
    )
    add(
        "--epsilon",
        nargs="+",
        type=_above_zero,
        metavar="E",
        help="of the accounted noise, one run each (default: {default}; with --profile smoke: 8)",
    )
    add("--delta", type=_open_share, metavar="D", help="of the promise; default: a tenth of 1 / users")
    add("--clip", type=_above_zero, metavar="C", help="bound of a client's upload (default: {default})")
    add(
        "--adaptive-quantile",
        type=_open_share,
        metavar="Q",
        help="let the bound follow this quantile of the norms; default: the bound is fixed",
    )
    add(
        "--noise-scale",
        type=_above_zero,
        metavar="S",
        help="standard deviation of the paper's noise, which the paper does not state (default: {default})",
    )


def make_noise_options(given: Mapping[str, object], profile: object) -> NoiseOptions:
    """Return the noise options that were given, the rest as the profile and the package have them.

    Args:
        given: values by the names in `NOISE_ARGUMENTS`.
        profile: name of the profile; `smoke` has fewer epsilons.
    """
    from fedvlr_plugin.config import build_config
    from fedvlr_plugin.experiment.noise_options import SMOKE_EPSILONS, NoiseOptions

    values = {name: value for name, value in given.items() if name not in ("noise", "epsilon")}
    noises, epsilons = given.get("noise"), given.get("epsilon")
    if isinstance(noises, Iterable):
        values["noise"] = tuple(name for name in NOISES if name in noises)
    if isinstance(epsilons, Iterable):
        values["epsilons"] = tuple(sorted(set(epsilons)))
    elif profile == "smoke":
        values["epsilons"] = SMOKE_EPSILONS
    return build_config(NoiseOptions, values)


def _above_zero(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def _open_share(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
