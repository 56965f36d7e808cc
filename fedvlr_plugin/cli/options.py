"""The options of the table runners, parsed without importing anything heavy; complaints are one line.

Neither torch nor pydantic is imported here, so that a typing error is answered at once.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.noise_options import CLIP, EPSILONS, NOISE_SCALE, NOISES, SMOKE_EPSILONS, NoiseOptions

if TYPE_CHECKING:
    from fedvlr_plugin.experiment.profiles import Profile

PROFILES = ("smoke", "quick", "paper")
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Options:
    """What the user asked for; None = the default of the profile or of the package."""

    datasets: tuple[str, ...] | None
    rows: tuple[str, ...] | None
    profile: str
    seeds: int | None
    protocol: str
    data_root: Path | None
    results: Path
    device: str
    engine: str
    memory_budget: int | None
    keep: tuple[str, ...]
    overwrite: str
    checkpoint_every: int | None
    dropout: float
    stragglers: float
    control: str
    settings: dict[str, object]
    dry_run: bool
    stored: bool
    search: str | None
    trials: int | None
    storage: str | None
    pruning: bool
    noise: NoiseOptions


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def parse_options(
    argv: Sequence[str], prog: str = "run_table2.py", product: str = "Table 2", with_noise: bool = False
) -> Options:
    """Parses a command line; exits with status 2 and one line on stderr if it makes no sense.

    `with_noise` adds the options of `table4_options`.
    """
    parser = _Parser(
        prog=prog,
        description=f"{product}: run what is missing in the results store, then show it from there.",
        epilog="Stopped with Ctrl-C, or killed? The same command goes on where it was.",
    )
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
        help=f"rows, e.g. FedAvg FedAvg+ours VBPR popularity; default: all of {product}",
    )
    add("--profile", choices=PROFILES, default="quick", help="how much to spend (default: quick)")
    add("--seeds", type=_positive, metavar="N", help="runs per cell, with the seeds 0 .. N-1; default: the profile's")
    add("--protocol", choices=("corrected", "as_released"), default="corrected", help="default: corrected")
    add("--data-root", type=Path, metavar="DIR", help="folder of data sets; default: $FEDVLR_DATA, then ./data")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="results store (default: results)")
    add("--device", default="cpu", metavar="cpu|cuda", help="where to compute (default: cpu)")
    add("--engine", choices=("batched", "sequential"), default="batched", help="default: batched")
    add("--memory-budget", type=_bytes, metavar="SIZE", help="memory for private item rows, e.g. 2G")
    add(
        "--keep",
        nargs="+",
        choices=("router_weights",),
        default=[],
        help="private results to store beside the ranks; figure 2 keeps router_weights by itself",
    )
    add(
        "--overwrite",
        choices=("only-missing", "always", "never"),
        default="only-missing",
        help="only-missing: compute what is not stored (default); always: compute all, replace what is stored; "
        "never: refuse to start if any of it is stored",
    )
    add(
        "--checkpoint-every",
        type=_positive,
        metavar="N",
        help="save federated runs each N rounds under RESULTS/checkpoints, to go on from there when killed; such a file "
        "holds the clients' private state and is removed when its run is finished (default: a killed run starts anew)",
    )
    add("--dropout", type=_share, default=0.0, metavar="R", help="share of the cohort that fails before it trains")
    add(
        "--stragglers",
        type=_share,
        default=0.0,
        metavar="R",
        help="share that trains but answers too late to count",
    )
    add(
        "--control",
        choices=("none", "shuffled"),
        default="none",
        help="shuffled: run every row that uses item features a second time, each item with the features of another one "
        "(Table 2; default: none)",
    )
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings over the profile's, e.g. client_lr=0.01")
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
    if with_noise:
        add_noise_options(parser)
    found = parser.parse_args(list(argv))
    try:
        settings = dict(_setting(text) for text in found.set)
    except ConfigError as error:
        parser.error(str(error))
    return Options(
        datasets=tuple(found.datasets) if found.datasets else None,
        rows=tuple(found.rows) if found.rows else None,
        profile=found.profile,
        seeds=found.seeds,
        protocol=found.protocol,
        data_root=found.data_root,
        results=found.results,
        device=found.device,
        engine=found.engine,
        memory_budget=found.memory_budget,
        keep=tuple(found.keep),
        overwrite=found.overwrite,
        checkpoint_every=found.checkpoint_every,
        dropout=found.dropout,
        stragglers=found.stragglers,
        control=found.control,
        settings=settings,
        dry_run=found.dry_run,
        stored=found.stored,
        search=found.search,
        trials=found.trials,
        storage=found.storage,
        pruning=found.pruning,
        noise=noise_options(found) if with_noise else NoiseOptions(),
    )


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


def searches(options: Options, profile: Profile) -> bool:
    """Whether parameters are searched: as the user says, else as the profile does."""
    return options.search != "none" if options.search else bool(profile.search)


def check_search(options: Options, profile: Profile) -> None:
    """Refuses options of a search where there is none, and a database out of reach, before any work.

    Raises `ConfigError`.
    """
    given = {"--storage": options.storage, "--trials": options.trials, "--pruning": options.pruning}
    for name, value in given.items():
        if value and not searches(options, profile):
            raise ConfigError(
                f"{name} is an option of a search, and here is none (profile '{profile.name}', --search "
                f"{options.search or 'not given'}); add --search tpe or --search grid"
            )
    if options.storage is not None:
        from fedvlr_plugin.search.storage import check_url

        check_url(options.storage)


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """Adds them to a parser."""
    group = parser.add_argument_group("noise")
    add = group.add_argument
    add(
        "--noise",
        nargs="+",
        choices=NOISES,
        default=list(NOISES),
        help="paper: on gradients that are not clipped, promises nothing; accounted: clipped, with an epsilon "
        "(default: both)",
    )
    add(
        "--epsilon",
        nargs="+",
        type=_above_zero,
        metavar="E",
        help="of the accounted noise, one run each (default: 1 2 4 8; with --profile smoke: 8)",
    )
    add("--delta", type=_open_share, metavar="D", help="of the promise; default: a tenth of 1 / users")
    add("--clip", type=_above_zero, default=CLIP, metavar="C", help=f"bound of a client's upload (default: {CLIP:g})")
    add("--adaptive-quantile", type=_open_share, metavar="Q", help="let the bound follow this quantile of the norms")
    add(
        "--noise-scale",
        type=_above_zero,
        default=NOISE_SCALE,
        metavar="S",
        help=f"standard deviation of the paper's noise, which the paper does not state (default: {NOISE_SCALE:g})",
    )


def noise_options(found: argparse.Namespace) -> NoiseOptions:
    """What was given, the rest filled in."""
    usual = SMOKE_EPSILONS if found.profile == "smoke" else EPSILONS
    return NoiseOptions(
        tuple(name for name in NOISES if name in found.noise),
        tuple(sorted(set(found.epsilon or usual))),
        found.delta,
        found.clip,
        found.adaptive_quantile,
        found.noise_scale,
    )


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
