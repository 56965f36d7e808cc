"""`run_table2.py` and `fedvlr table2`: options in, runs done, table out. Returns the exit status.

Everything that can be checked is checked before any work: names, settings, device, results folder, data. Heavy
modules are imported after the options are parsed, behind the first line of output. Imports its neighbours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.options import Options, parse_options
from fedvlr_plugin.errors import FedVLRError

if TYPE_CHECKING:
    from fedvlr_plugin.benchmark.experiment import Plan, Runner
    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.config import ExecutionConfig, RunSpec
    from fedvlr_plugin.data.prepared import PreparedData

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Sources:
    """Where data sets come from; tests put their own in place.

    Attributes:
        default: names to use when the user gives none. check: canonical name, raises for an unknown one.
        load: reads and prepares one.
    """

    default: Callable[[Path | None], list[str]]
    check: Callable[[str, Path | None], str]
    load: Callable[[str, Path | None], PreparedData]


@dataclass(frozen=True)
class Job:
    """A checked request: the runs of the table, their data, and where results go."""

    specs: tuple[RunSpec, ...]
    data: Mapping[str, PreparedData]
    store: ResultsStore
    execution: ExecutionConfig
    plan: Plan


def main(
    argv: Sequence[str], *, prog: str = "run_table2.py", sources: Sources | None = None, runner: Runner | None = None
) -> int:
    """Fills in and prints Table 2.

    Returns:
        0; 1 if some runs failed; 2 for a request that cannot be carried out; 130 after Ctrl-C.
    """
    options = parse_options(argv, prog)
    say(f"Table 2, profile {options.profile}, protocol {options.protocol}: checking the request ...")
    try:
        return _table2(options, sources or default_sources(), runner)
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(
            f"stopped. Finished runs are stored in '{options.results}'; the same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED


def say(line: str) -> None:
    """One line to the user, at once."""
    print(line, flush=True)


def default_sources() -> Sources:
    """The catalogue of data sets."""
    from fedvlr_plugin.benchmark.datasets import check, default, load

    return Sources(default, check, load)


def prepare(options: Options, sources: Sources) -> Job:
    """Checks everything; raises `FedVLRError` for the first thing that is wrong, before any work is done."""
    from fedvlr_plugin.benchmark.experiment import make_plan
    from fedvlr_plugin.benchmark.names import check_rows
    from fedvlr_plugin.benchmark.profiles import get_profile, specs_for
    from fedvlr_plugin.benchmark.rows import known_rows
    from fedvlr_plugin.benchmark.run import check_device
    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.config import ExecutionConfig, build_config

    profile = get_profile(options.profile)
    rows = check_rows(options.rows or known_rows())
    names = options.datasets or profile.datasets or tuple(sources.default(options.data_root))
    datasets = list(dict.fromkeys(sources.check(name, options.data_root) for name in names))
    specs = specs_for(profile, datasets, rows, options.seeds or profile.seeds, options.protocol, options.settings)
    check_device(options.device)
    budget = {} if options.memory_budget is None else {"memory_budget": options.memory_budget}
    execution = build_config(ExecutionConfig, {"engine": options.engine, "device": options.device, **budget})
    store = ResultsStore(options.results)
    store.check_writable()
    data = {}
    for name in datasets:
        data[name] = sources.load(name, options.data_root)
        say(f"  {summary_line(data[name])}")
    plan = make_plan(specs, store, data, options.overwrite)
    return Job(tuple(specs), data, store, execution, plan)


def summary_line(data: PreparedData) -> str:
    """`ku: 204 users, 560 items, 3489 interactions (as Table 1); text 512, image 512`."""
    from fedvlr_plugin.benchmark.paper import display_name, published

    x = data.interactions
    found = {line["dataset"]: line for line in published(1)}.get(display_name(data.name))
    beside = ""
    if found is not None:
        theirs = tuple(int(found[key]) for key in ("users", "items", "ratings"))
        equal = theirs == (x.n_users, x.n_items, x.n_interactions)
        beside = " (as Table 1)" if equal else " (Table 1: {:,} users, {:,} items, {:,} ratings)".format(*theirs)
    modalities = ", ".join(f"{m.name} {m.dim}" for m in data.features.values()) or "no item features"
    size = f"{x.n_users:,} users, {x.n_items:,} items, {x.n_interactions:,} interactions"
    return f"{data.name}: {size}{beside}; {modalities}"


def _table2(options: Options, sources: Sources, runner: Runner | None) -> int:
    from rich.console import Console

    from fedvlr_plugin.benchmark.estimate import spell_seconds
    from fedvlr_plugin.benchmark.experiment import execute
    from fedvlr_plugin.benchmark.progress import make_progress
    from fedvlr_plugin.benchmark.run import run

    job = prepare(options, sources)
    plan = job.plan
    cost = f", about {spell_seconds(sum(plan.seconds))}" if plan.todo else ""
    say(f"{len(plan.todo)} runs to do{cost}; {plan.stored} of {len(job.specs)} stored in '{options.results}'.")
    if options.dry_run:
        return OK
    console = Console()
    failures = execute(
        plan, job.store, job.data, make_progress(console), runner or run, job.execution, options.profile
    )  # fmt: skip
    _print(options, job, console)
    for failure in failures:
        spec = failure.spec
        print(f"error: {spec.dataset} {spec.row}, seed {spec.seed}: {failure.message}", file=sys.stderr)
    return FAILED if failures else OK


def _print(options: Options, job: Job, console: object) -> None:
    from rich.console import Console

    from fedvlr_plugin.benchmark.files import write_atomic
    from fedvlr_plugin.benchmark.layouts import csv_text, markdown, print_table
    from fedvlr_plugin.benchmark.table import build_table

    fingerprints = {name: data.fingerprint for name, data in job.data.items()}
    table = build_table(job.store, job.specs, fingerprints, options.profile)
    print_table(table, console if isinstance(console, Console) else Console())
    stem = options.results / "tables" / f"table2-{options.profile}-{options.protocol}"
    for suffix, text in ((".md", markdown(table)), (".csv", csv_text(table))):
        write_atomic(stem.with_suffix(suffix), text.encode())
    say(f"Written: '{stem}.md' and '.csv'.")
