"""Attacks against a row and the robust rules against attacks: a table of HR@50, NDCG@50 and the target's exposure.

    python benchmarks/run_attacks.py --dataset ku --row FedAvg+ours                     # profile quick
    python benchmarks/run_attacks.py --dataset ml --row FCF --attacks sign_flip --share 0.2 --scale 5 --seeds 3
    python benchmarks/run_attacks.py --dataset planted --profile smoke --rounds 5

Every setting is trained anew: no attack, each attack, with no defence and with each rule. Written to
RESULTS/tables/attacks-<data set>-<row>-<profile>.md and .csv, means over seeds in -means.md. The exposure is given in all settings: for the item
that `promotion` pushes (the least popular one unless --item names it).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from fedvlr_plugin.aggregation.robust import RULES
from fedvlr_plugin.audit.robustness import HEAD, bench, settings
from fedvlr_plugin.config import Attack, ExecutionConfig, build_config
from fedvlr_plugin.data.recbole import loader as datasets
from fedvlr_plugin.devices import check_device
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.experiment.profiles import PROFILES, get_profile, spec_for
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import check_spec
from fedvlr_plugin.reporting.audit_tables import attack_grid
from fedvlr_plugin.reporting.grid import print_grid, write_grid, write_table

KINDS = ("sign_flip", "scaling", "promotion")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--dataset", default="ku")
    line.add_argument("--data-root", type=Path)
    line.add_argument("--row", default="FedAvg+ours")
    line.add_argument("--profile", choices=list(PROFILES), default="quick")
    line.add_argument("--attacks", nargs="+", choices=KINDS, default=list(KINDS))
    line.add_argument("--rules", nargs="+", choices=RULES.names(), default=RULES.names())
    line.add_argument("--share", type=float, default=0.1, help="share of liars (default 0.1)")
    line.add_argument("--scale", type=float, default=10.0, help="factor of every attack (default 10)")
    line.add_argument("--item", type=int, help="item to promote, from 0; default: the least popular")
    line.add_argument("--seeds", type=int, default=1)
    line.add_argument("--rounds", type=int, help="instead of the profile's")
    line.add_argument("--device", default="cpu")
    line.add_argument("--results", type=Path, default=Path("results"))
    return line


def main(argv: list[str] | None = None) -> int:
    """Runs, prints and writes; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        if options.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {options.seeds}")
        profile, row = get_profile(options.profile), parse_row(options.row).name
        changed = {} if options.rounds is None else {"rounds": options.rounds}
        data = datasets.load(datasets.check(options.dataset, options.data_root), options.data_root)
        specs = [spec_for(profile, data.name, row, seed, overrides=changed) for seed in range(options.seeds)]
        values = {"share": options.share, "scale": options.scale, "item": options.item}
        attacks = [build_config(Attack, {"kind": kind, **values}) for kind in options.attacks]
        conditions = settings(attacks, options.rules, options.share)
        execution = ExecutionConfig(device=options.device)
        check_device(options.device)
        for setting in conditions:
            check_spec(
                specs[0].model_copy(update={"conditions": setting}), execution, data.interactions.n_items
            )  # fmt: skip
        outcomes = bench(specs, conditions, data, options.share, lambda line: print(line, flush=True), execution)
        notes = [
            f"{options.share:.0%} of the clients lie, scale {options.scale:g}; trim and malicious of the rules follow.",
            "Percent; all clients in HR and NDCG, honest ones in the exposure.",
            f"Profile {profile.name}, {specs[0].training.rounds} rounds at most, {options.seeds} seed(s).",
        ]
        stem = options.results / "tables" / f"attacks-{data.name}-{row}-{profile.name}"
        print("\n" + write_table(stem, HEAD, [o.cells for o in outcomes], f"Attacks on {row}, {data.name}", notes))
        means = attack_grid([outcome.cells for outcome in outcomes])
        print_grid(means, Console() if sys.stdout.isatty() else Console(width=160))
        write_grid(means, stem.with_name(stem.name + "-means"))
        print(f"Written: '{stem}.md' and '.csv', '-means' beside them.")
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
