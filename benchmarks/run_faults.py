#!/usr/bin/env python
"""What failing clients cost: runs what is missing at each level of faults, then prints one small table.

    python benchmarks/run_faults.py --datasets ku --rows FedAvg FedAvg+ours

Takes the options of run_table2.py; one data set, no search.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from rich.console import Console

from fedvlr_plugin.cli.options import parse_options
from fedvlr_plugin.cli.request import default_sources, prepare
from fedvlr_plugin.cli.tables import say
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.experiment.execution import execute, make_plan
from fedvlr_plugin.experiment.profiles import get_profile
from fedvlr_plugin.experiment.progress import make_progress
from fedvlr_plugin.experiment.run import run
from fedvlr_plugin.experiment.variants import with_faults
from fedvlr_plugin.files import write_atomic
from fedvlr_plugin.reporting.faults_table import LEVELS, fault_table

ROWS = ("FedAvg", "FedAvg+ours")


def main(argv: list[str]) -> int:
    """0, 1 where a run failed, 2 for a bad request, 130 when interrupted; what is finished stays stored."""
    options = parse_options([*argv, "--search", "none"], prog="run_faults.py")
    options = replace(options, rows=options.rows or ROWS)
    if options.datasets is None or len(options.datasets) != 1 or options.dropout or options.stragglers:
        print("error: give one data set with --datasets, and no --dropout or --stragglers", file=sys.stderr)
        return 2
    try:
        job = prepare(options, default_sources(), "table2", say)
        specs = [with_faults(spec, *level) for level in LEVELS for spec in job.specs]
        plan = make_plan(specs, job.store, job.data, options.overwrite, job.execution)
        say(f"{len(plan.todo)} runs to do, {plan.stored} stored in '{options.results}'.")
        if options.dry_run:
            return 0
        failures = execute(plan, job.store, job.data, make_progress(Console()), run, job.execution, options.profile)
        profile = get_profile(options.profile)
        text = fault_table(job.store, profile.name, job.datasets[0], job.rows, options.seeds or profile.seeds)
        path = options.results / "tables" / f"faults-{profile.name}-{job.datasets[0]}.md"
        write_atomic(path, text.encode())
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped. What is finished is stored in '{options.results}'; the same command goes on.", file=sys.stderr)
        return 130
    say(f"\n{text}\nWritten: '{path}'.")
    for failure in failures:
        print(f"error: {failure.spec.row}, seed {failure.spec.seed}: {failure.message}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
