"""`run_table2.py`, `run_table4.py`, `run_figure2.py`, `run_figure3.py`: options in, runs done, product out. Returns the exit status.

Everything that can be checked is checked before any work: names, settings, device, results folder, data. Heavy
modules are imported after the options are parsed, behind the first line of output. Imports its neighbours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.options import Options, parse_options
from fedvlr_plugin.errors import FedVLRError

if TYPE_CHECKING:
    from fedvlr_plugin.benchmark.campaign import Campaign, Cell
    from fedvlr_plugin.benchmark.experiment import Failure, Plan, Runner
    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.config import ExecutionConfig, RunSpec
    from fedvlr_plugin.data.prepared import PreparedData

PLAIN_WIDTH = 160
TITLES = {
    "table2": "Table 2",
    "table4": "Table 4",
    "figure2": "Figure 2 (router weights)",
    "figure3": "Figure 3 (parts left out)",
}
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
    """A checked request.

    Attributes:
        rows, datasets: canonical names, in the table's order.
        specs: runs without a search (all of them, or the floors). cells: what is searched first.
        data: by name. store: where results go. execution: how runs are executed.
    """

    rows: tuple[str, ...]
    datasets: tuple[str, ...]
    specs: tuple[RunSpec, ...]
    cells: tuple[Cell, ...]
    data: Mapping[str, PreparedData]
    store: ResultsStore
    execution: ExecutionConfig


def main(
    argv: Sequence[str],
    *,
    prog: str = "run_table2.py",
    product: str = "table2",
    sources: Sources | None = None,
    runner: Runner | None = None,
) -> int:
    """Does the runs that a product needs and draws it.

    Args:
        argv: options, see `options`. product: a key of `TITLES`.
        sources, runner: where data come from and what does a run; tests put their own in place.

    Returns:
        0; 1 if some runs failed; 2 for a request that cannot be carried out; 130 after Ctrl-C.
    """
    options = parse_options(argv, prog, TITLES[product], with_noise=product == "table4")
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (torchrun: rank 0 speaks)
    say(f"{TITLES[product]}, profile {options.profile}, protocol {options.protocol}: checking the request ...")
    try:
        if options.stored:
            from fedvlr_plugin.benchmark.stored_product import draw_stored

            draw_stored(options, product, say)
            return OK
        return _work(options, product, sources or default_sources(), runner)
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


def prepare(options: Options, sources: Sources, product: str = "table2") -> Job:
    """Checks everything; raises `FedVLRError` for the first thing that is wrong, before any work is done."""
    from dataclasses import replace

    from fedvlr_plugin.benchmark.fault_labels import with_faults
    from fedvlr_plugin.benchmark.names import check_rows
    from fedvlr_plugin.benchmark.products import get_product
    from fedvlr_plugin.benchmark.profiles import get_profile, specs_for
    from fedvlr_plugin.benchmark.rows import FLOORS
    from fedvlr_plugin.benchmark.run import check_device, check_spec
    from fedvlr_plugin.benchmark.search_options import check_search, searches
    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.config import ExecutionConfig, build_config

    profile = get_profile(options.profile)
    wanted = get_product(product, options)
    rows = check_rows(options.rows or wanted.rows())
    wanted.check(rows)
    names = options.datasets or profile.datasets or wanted.datasets or tuple(sources.default(options.data_root))
    datasets = list(dict.fromkeys(sources.check(name, options.data_root) for name in names))
    check_search(options, profile)
    searched = [r for r in rows if r not in FLOORS] if searches(options, profile) else []
    plain = [row for row in rows if row not in searched]
    seeds = options.seeds or profile.seeds
    specs = specs_for(profile, datasets, plain, seeds, options.protocol, options.settings)
    cells: list[Cell] = []
    if searched:
        from fedvlr_plugin.benchmark.campaign import cells_for

        cells = cells_for(
            profile, datasets, searched, options.protocol, options.settings,
            options.seeds, options.search, options.trials, options.pruning,
        )  # fmt: skip
    check_device(options.device)
    specs = [with_faults(spec, options.dropout, options.stragglers) for spec in specs]
    cells = [
        replace(cell, study=replace(cell.study, base=with_faults(cell.study.base, options.dropout, options.stragglers)))
        for cell in cells
    ]
    budget = {} if options.memory_budget is None else {"memory_budget": options.memory_budget}
    if options.checkpoint_every is not None:
        budget["checkpoint_every"] = options.checkpoint_every
    keep = tuple(dict.fromkeys([*options.keep, *wanted.keep]))
    execution = build_config(
        ExecutionConfig, {"engine": options.engine, "device": options.device, "keep": keep, **budget}
    )
    store = ResultsStore(options.results)
    store.check_writable()
    data = {}
    for name in datasets:
        data[name] = sources.load(name, options.data_root)
        say(f"  {summary_line(data[name])}")
    for spec in specs:
        check_spec(spec, execution, data[spec.dataset].interactions.n_items)
    return Job(tuple(rows), tuple(datasets), tuple(specs), tuple(cells), data, store, execution)


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


def _work(options: Options, product: str, sources: Sources, runner: Runner | None) -> int:
    from rich.console import Console

    from fedvlr_plugin.benchmark.experiment import execute, make_plan
    from fedvlr_plugin.benchmark.fault_labels import fault_suffix
    from fedvlr_plugin.benchmark.products import Finished, get_product
    from fedvlr_plugin.benchmark.progress import make_progress
    from fedvlr_plugin.benchmark.run import run

    job = prepare(options, sources, product)
    searched = _campaign(options, job, runner or run) if job.cells else None
    wanted = get_product(product, options)
    specs = [*job.specs, *([] if searched else wanted.more(job.specs, job.data))]
    plan = make_plan(specs, job.store, job.data, options.overwrite, job.execution)
    store = _sink(options, job)
    _announce(options, len(specs), plan, searched)
    if options.dry_run:
        return OK
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)

    def do(plan: Plan) -> list[Failure]:
        progress = make_progress(console)
        return execute(plan, store, job.data, progress, runner or run, job.execution, options.profile)

    failures = do(plan)
    if store is not job.store:
        return FAILED if failures else OK
    table = list(job.specs)
    if searched is not None:
        failures += searched.run(make_progress(console))
        table += [spec for tuned in searched.selections() for spec in tuned.specs()]
        failures += do(make_plan(wanted.more(table, job.data), job.store, job.data, execution=job.execution))
    suffix = f"{options.profile}-{options.protocol}" + fault_suffix(options.dropout, options.stragglers)
    fingerprints = {name: data.fingerprint for name, data in job.data.items()}
    modalities = {name: list(data.features) for name, data in job.data.items()}
    wanted.finish(
        Finished(
            table, job.rows, job.datasets, fingerprints, modalities, job.store, options.profile, suffix, console, say
        )
    )
    for failure in failures:
        spec = failure.spec
        print(f"error: {spec.dataset} {spec.row}, seed {spec.seed}: {failure.message}", file=sys.stderr)
    return FAILED if failures else OK


def _sink(options: Options, job: Job) -> ResultsStore:
    """Where this process stores its runs: under torchrun only rank 0 writes to the results folder."""
    import tempfile

    import torch

    from fedvlr_plugin.benchmark.store import ResultsStore
    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.federation.processes import join_processes

    processes = join_processes(torch.device(options.device))
    if processes.size > 1 and job.cells:
        raise ConfigError(
            "a search does not run under torchrun: its processes share trials through the storage instead; start the "
            "same command several times without torchrun, or add --search none"
        )
    processes.gather(None)  # nobody stores anything before everybody has planned
    return job.store if processes.is_main else ResultsStore(Path(tempfile.mkdtemp(prefix="fedvlr-rank-")))


def _campaign(options: Options, job: Job, runner: Runner) -> Campaign:
    """Opens the studies; `--overwrite` other than only-missing makes no sense for them and is refused."""
    import logging

    import optuna

    from fedvlr_plugin.benchmark.campaign import Campaign
    from fedvlr_plugin.benchmark.storage import open_storage
    from fedvlr_plugin.errors import ConfigError

    if options.overwrite != "only-missing":
        raise ConfigError(
            f"--overwrite {options.overwrite} cannot be used with a search, whose finished trials are always kept; "
            "choose another --results DIR to start anew, or --search none"
        )
    optuna.logging.set_verbosity(logging.WARNING)
    storage = open_storage(options.storage or f"sqlite:///{options.results / 'studies.db'}")
    return Campaign(job.cells, job.data, job.store, storage, runner, job.execution, options.profile)


def _announce(options: Options, total: int, plan: Plan, campaign: Campaign | None) -> None:
    """What will be done and what it will cost."""
    from fedvlr_plugin.benchmark.estimate import spell_seconds

    cost = f", about {spell_seconds(sum(plan.seconds))}" if plan.todo else ""
    what = "runs" if campaign is None else "runs of floors"
    say(f"{len(plan.todo)} {what} to do{cost}; {plan.stored} of {total} stored in '{options.results}'.")
    if campaign is None:
        return
    weights = campaign.weights()
    cost = f", about {spell_seconds(sum(weights))} for one worker" if weights else ""
    say(f"{len(campaign.cells)} cells to search: {len(weights)} trials and runs to do{cost}.")
