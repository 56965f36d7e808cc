"""`run_table2.py`, `run_table4.py`, `run_figure2.py`, `run_figure3.py`: options in, runs done, product out. Returns the exit status.

Heavy modules are imported after the options are parsed, behind the first line of output. What is checked before any
work is in `request`. Imports its neighbours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.benchmark.options import Options, parse_options
from fedvlr_plugin.benchmark.sources import Sources, default_sources
from fedvlr_plugin.errors import FedVLRError

if TYPE_CHECKING:
    from fedvlr_plugin.benchmark.campaign import Campaign
    from fedvlr_plugin.benchmark.experiment import Failure, Plan, Runner
    from fedvlr_plugin.benchmark.request import Job
    from fedvlr_plugin.benchmark.store import ResultsStore

TITLES = {
    "table2": "Table 2",
    "table4": "Table 4",
    "figure2": "Figure 2 (router weights)",
    "figure3": "Figure 3 (parts left out)",
}
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


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


def _work(options: Options, product: str, sources: Sources, runner: Runner | None) -> int:
    from fedvlr_plugin.benchmark.experiment import execute, make_plan
    from fedvlr_plugin.benchmark.fault_labels import fault_suffix
    from fedvlr_plugin.benchmark.grids import terminal
    from fedvlr_plugin.benchmark.products import Finished, get_product
    from fedvlr_plugin.benchmark.progress import make_progress
    from fedvlr_plugin.benchmark.request import prepare
    from fedvlr_plugin.benchmark.run import run

    job = prepare(options, sources, product, say)
    searched = _campaign(options, job, runner or run) if job.cells else None
    wanted = get_product(product, options)
    specs = [*job.specs, *([] if searched else wanted.more(job.specs, job.data))]
    plan = make_plan(specs, job.store, job.data, options.overwrite, job.execution)
    store = _sink(options, job)
    _announce(options, len(specs), plan, searched)
    if options.dry_run:
        return OK
    console = terminal()

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
