"""The command line of the privacy audit: options, the runs, the files. Imports heavy rooms when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedvlr_plugin.benchmark.table4_options import add_noise_options, noise_options
from fedvlr_plugin.errors import ConfigError, FedVLRError

DESCRIPTION = "What a row's uplink tells a curious server: who takes part, what is in a history, head and router."


def parser(prog: str) -> argparse.ArgumentParser:
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
    options = parser(prog).parse_args(argv)
    try:
        _run(options)
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from fedvlr_plugin.audit.audit_table import member_grid, sight_grid
    from fedvlr_plugin.audit.findings import Audit, member_line, sight_lines, write_audit
    from fedvlr_plugin.audit.privacy_audit import trace
    from fedvlr_plugin.benchmark import datasets
    from fedvlr_plugin.benchmark.grids import print_grid, write_grid
    from fedvlr_plugin.benchmark.manifest import environment
    from fedvlr_plugin.benchmark.profiles import get_profile, spec_for
    from fedvlr_plugin.benchmark.rows import parse_row
    from fedvlr_plugin.benchmark.run import check_spec
    from fedvlr_plugin.benchmark.table4 import levels
    from fedvlr_plugin.config import ExecutionConfig
    from fedvlr_plugin.files import check_writable
    from fedvlr_plugin.privacy.promise import default_delta

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
        traces = [trace(spec, level, data, options.users, _say) for spec in specs]
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


def _say(line: str) -> None:
    print(line, flush=True)
