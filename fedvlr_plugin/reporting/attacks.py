"""The output `attacks`: what lying clients do to a row, and what each robust rule saves.

Every setting is trained anew: no attack and each attack, with no defence and with each rule. `tables/attacks-*` holds a
line per setting and seed, `tables/attacks-*-means` the means over seeds.
"""

from __future__ import annotations

import csv
import io
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.files import read_bytes
from fedvlr_plugin.reporting.grid import Grid, Value, format_count, format_mean_sd
from fedvlr_plugin.reporting.output import ComputedOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN

if TYPE_CHECKING:
    from fedvlr_plugin.audit.robustness import Outcome
    from fedvlr_plugin.config import Conditions, ExecutionConfig, RunSpec
    from fedvlr_plugin.data.prepared import PreparedData

ATTACKS_KNOWN = ("sign_flip", "scaling", "promotion")
PROFILES = ("smoke", "quick", "paper")
HEADINGS = ("row", "attack", "defence", "seed", "best round", "HR@50", "NDCG@50", "exposure of the target")

ROW, ATTACK, DEFENCE, SEED, _, HR, NDCG, EXPOSURE = range(len(HEADINGS))
NONE, PROMOTION = "none", "promotion"


def read_outcomes(path: Path) -> list[list[str]]:
    """The lines of a bench; raises `ResultsError` for a file that is not one."""
    lines = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8", "replace"))))
    if not lines or lines[0] != list(HEADINGS) or any(len(line) != len(HEADINGS) for line in lines):
        raise ResultsError(f"'{path}' is not a table of the attack bench; run fedvlr attacks again")
    return lines[1:]


def attack_grid(outcomes: Sequence[Sequence[str]]) -> Grid:
    """HR@50 / NDCG@50 of each defence under each attack, and the exposure of the target with nobody lying and under promotion.

    Raises `ResultsError` where a cell is no number.
    """
    attacks = list(dict.fromkeys(line[ATTACK] for line in outcomes))
    defences = list(dict.fromkeys(line[DEFENCE] for line in outcomes))
    exposed = [attack for attack in (NONE, PROMOTION) if attack in attacks]
    headings = ["defence", *("nobody lies" if a == NONE else a for a in attacks)]
    headings += [f"exposure, {'nobody lies' if a == NONE else a}" for a in exposed]
    body = []
    for defence in defences:
        cells: list[Value] = [_both(outcomes, attack, defence) for attack in attacks]
        body.append((defence, *cells, *(_cell(outcomes, attack, defence, EXPOSURE) for attack in exposed)))
    seeds = len({line[SEED] for line in outcomes})
    rows = " / ".join(dict.fromkeys(line[ROW] for line in outcomes))
    note = (
        f"HR@50 / NDCG@50 of {rows} on the test split in percent, mean ± standard deviation over {format_count(seeds, 'seed')}. Exposure: "
        "share of honest clients, not trained on the target, with it in their first 50, in percent."
    )
    return Grid(tuple(headings), tuple(body), (note,))


def _both(outcomes: Sequence[Sequence[str]], attack: str, defence: str) -> str | None:
    parts = [_cell(outcomes, attack, defence, column) for column in (HR, NDCG)]
    return None if parts[0] is None or parts[1] is None else f"{parts[0]} / {parts[1]}"


def _cell(outcomes: Sequence[Sequence[str]], attack: str, defence: str, column: int) -> str | None:
    try:
        found = [float(line[column]) for line in outcomes if (line[ATTACK], line[DEFENCE]) == (attack, defence)]
    except ValueError:
        raise ResultsError(f"the attack bench holds a figure that is no number ({attack}, {defence})") from None
    if not found:
        return None
    return format_mean_sd(mean(found), stdev(found) if len(found) > 1 else None, digits=1)


def outcome_grid(outcomes: Sequence[Outcome], title: str, notes: Sequence[str]) -> Grid:
    """Return one line per setting and seed, in percent."""
    return Grid(HEADINGS, tuple(tuple(outcome.cells) for outcome in outcomes), tuple(notes), title)


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the attacks."""
    add = parser.add_argument
    add("--dataset", default="ku", metavar="NAME", help="data set (default: %(default)s)")
    add("--data-root", type=Path, metavar="DIR", help="folder of data sets; default: $FEDVLR_DATA, then ./data")
    add("--row", help="a federated row; default: +ours of the first backbone that has routers (fedvlr list)")
    add("--profile", choices=PROFILES, default="quick", help="settings of the row (default: %(default)s)")
    add("--attacks", nargs="+", choices=ATTACKS_KNOWN, default=list(ATTACKS_KNOWN), help="default: all of them")
    add("--rules", nargs="+", help="robust rules to try; default: all that are installed (fedvlr list)")
    add("--share", type=float, default=0.1, metavar="R", help="share of clients that lie (default: %(default)s)")
    add("--scale", type=float, default=10.0, metavar="X", help="factor of every attack (default: %(default)s)")
    add("--item", type=int, metavar="I", help="item to promote, counted from 0; default: the least popular one")
    add("--seeds", type=int, default=1, metavar="N", help="runs per setting, seeds 0 .. N-1 (default: %(default)s)")
    add("--rounds", type=int, metavar="N", help="at most so many rounds; default: the profile's")
    add("--device", default="cpu", metavar="cpu|cuda", help="where to compute (default: %(default)s)")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="results folder (default: %(default)s)")


def make(options: Namespace, say: Callable[[str], None]) -> None:
    """Train every setting, print the tables and write them.

    Args:
        options: as `add_options` describes them.
        say: prints one line.

    Raises:
        FedVLRError: the request cannot be carried out; told before anything is trained.
    """
    from fedvlr_plugin.aggregation.robust import RULES
    from fedvlr_plugin.audit.robustness import bench, settings
    from fedvlr_plugin.config import Attack, ExecutionConfig, build_config
    from fedvlr_plugin.data.recbole import loader
    from fedvlr_plugin.devices import check_device
    from fedvlr_plugin.experiment.profiles import get_profile, spec_for
    from fedvlr_plugin.experiment.rows import parse_row, rows_with_fusion
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.reporting.table_formats import markdown_grid, print_grid, terminal, write_grid

    if options.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {options.seeds}")
    rules = [RULES.canonical(name) for name in options.rules] if options.rules else RULES.names()
    profile, row = get_profile(options.profile), parse_row(options.row or rows_with_fusion("blfm")[0]).name
    changed = {} if options.rounds is None else {"rounds": options.rounds}
    data = loader.load(loader.check(options.dataset, options.data_root), options.data_root)
    specs = [spec_for(profile, data.name, row, seed, overrides=changed) for seed in range(options.seeds)]
    values = {"share": options.share, "scale": options.scale, "item": options.item}
    attacks = [build_config(Attack, {"kind": kind, **values}) for kind in options.attacks]
    conditions = settings(attacks, rules, options.share)
    execution = ExecutionConfig(device=options.device)
    check_device(options.device)
    _check_settings(specs[0], conditions, execution, data)
    store = ResultsStore(options.results)
    outcomes = bench(specs, conditions, data, options.share, say, execution)
    notes = (
        f"{options.share:.0%} of the clients lie, scale {options.scale:g}; trim and malicious of the rules follow.",
        "Percent; all clients in HR and NDCG, honest ones in the exposure.",
        f"Profile {profile.name}, {specs[0].training.rounds} rounds at most, {format_count(options.seeds, 'seed')}.",
    )
    stem = store.tables / f"attacks-{data.name}-{row}-{profile.name}"
    grid = outcome_grid(outcomes, f"Attacks on {row}, {data.name}", notes)
    say("\n" + markdown_grid(grid))
    means = attack_grid([outcome.cells for outcome in outcomes])
    print_grid(means, terminal())
    paths = write_grid(grid, stem) + write_grid(means, stem.with_name(stem.name + "-means"))
    say(f"Written: {', '.join(path.name for path in paths)} in '{stem.parent}'.")


def _check_settings(
    spec: RunSpec, conditions: Sequence[Conditions], execution: ExecutionConfig, data: PreparedData
) -> None:
    """Refuse a setting that the row or the data cannot meet."""
    from fedvlr_plugin.experiment.run import check_spec

    for setting in conditions:
        check_spec(spec.model_copy(update={"conditions": setting}), execution, data.interactions.n_items)


ATTACKS = ComputedOutput(
    BUILT_IN["attacks"].title,
    "Attacks against a row and the robust rules against attacks: HR@50, NDCG@50 and the exposure of the target item. Every "
    "setting is trained anew. The exposure is given in all settings, for the item that `promotion` pushes.",
    add_options,
    make,
)
