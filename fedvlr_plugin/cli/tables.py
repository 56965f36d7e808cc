"""The sub-commands that make tables and figures: options in, missing runs done, output shown and written.

Heavy modules are imported after the options are parsed, behind the first line of output. What is checked before any
work is in `request`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.cli.arguments import parse_options
from fedvlr_plugin.errors import ConfigError, FedVLRError, ResultsError
from fedvlr_plugin.reporting.output import ComputedOutput, RunsOutput
from fedvlr_plugin.reporting.outputs import BUILT_IN, get_output
from fedvlr_plugin.streams import replace_unwritable_characters
from fedvlr_plugin.threads import let_threads_sleep

if TYPE_CHECKING:
    from fedvlr_plugin.cli.options import Options
    from fedvlr_plugin.cli.request import Sources, TableRequest
    from fedvlr_plugin.config import RunSpec
    from fedvlr_plugin.experiment.execution import Failure, Plan, Runner
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.search.tuner import Tuner

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(
    argv: Sequence[str],
    *,
    prog: str = "run_table2.py",
    output: str = "table2",
    sources: Sources | None = None,
    runner: Runner | None = None,
) -> int:
    """Show a table or figure, after the runs that it lacks.

    Args:
        argv: the words after the command; `--help` lists them.
        prog: the command, for messages.
        output: name of the output, as in `reporting.outputs`.
        sources: where data sets come from; None = the catalogue of data sets.
        runner: what does a run; None = `experiment.run.run`.

    Returns:
        0; 1 if some runs failed; 2 for a request that cannot be carried out; 130 after Ctrl-C.
    """
    let_threads_sleep()
    replace_unwritable_characters()
    with silent_beside_rank_0():
        try:
            built_in = BUILT_IN.get(output)
            if built_in is None or built_in.options == "own":
                loaded = get_output(output)
                if isinstance(loaded, ComputedOutput):
                    return _compute(loaded, argv, prog)
                title, with_noise = loaded.title, loaded.with_noise
            else:
                title, with_noise = built_in.title, built_in.options == "noise"
        except FedVLRError as error:
            print(f"error: {error}", file=sys.stderr)
            return USAGE
        options = parse_options(argv, prog, title, with_noise)
        say(f"{title}, profile {options.profile}, protocol {options.protocol}: checking the request ...")
        try:
            if options.stored:
                draw_stored(options, output, say)
                return OK
            return _work(options, output, sources, runner)
        except FedVLRError as error:
            print(f"error: {error}", file=sys.stderr)
            return USAGE
        except KeyboardInterrupt:
            print(
                f"stopped. Finished runs are stored in '{options.results}'; the same command goes on from there.",
                file=sys.stderr,
            )
            return INTERRUPTED


@contextlib.contextmanager
def silent_beside_rank_0() -> Iterator[None]:
    """Under torchrun only rank 0 writes to the standard output; the others' is put back at the end."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):
        yield


def _compute(output: ComputedOutput, argv: Sequence[str], prog: str) -> int:
    """Parse the options of an output that computes what it shows, and make it."""
    parser = argparse.ArgumentParser(prog=prog, description=output.description)
    output.add_options(parser)
    options = parser.parse_args(list(argv))
    try:
        output.make(options, say)
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("stopped; what was not finished is not kept.", file=sys.stderr)
        return INTERRUPTED
    return OK


def runs_output(name: str) -> RunsOutput:
    """Return the output called `name`, which is drawn from runs.

    Raises:
        UnknownNameError: there is none.
        ConfigError: it computes what it shows, and takes no options about runs.
    """
    found = get_output(name)
    if not isinstance(found, RunsOutput):
        raise ConfigError(f"the output '{name}' is not drawn from stored runs; call fedvlr {name} --help")
    return found


def say(line: str) -> None:
    """Print one line at once."""
    print(line, flush=True)


def _work(options: Options, name: str, sources: Sources | None, runner: Runner | None) -> int:
    from fedvlr_plugin.cli.request import default_sources, prepare
    from fedvlr_plugin.experiment.controls import controls_of
    from fedvlr_plugin.experiment.execution import execute, make_plan
    from fedvlr_plugin.experiment.progress import make_progress
    from fedvlr_plugin.experiment.run import run
    from fedvlr_plugin.experiment.variants import fault_suffix
    from fedvlr_plugin.reporting.output import FinishedRuns
    from fedvlr_plugin.reporting.table_formats import terminal

    output = runs_output(name)
    job = prepare(options, sources or default_sources(), output, say)
    searched = _open_tuner(options, job, runner or run) if job.cells else None

    def more_runs(runs: Sequence[RunSpec]) -> list[RunSpec]:
        """Return what the output needs beside the rows' own runs, their controls included."""
        with_features = [spec for spec in runs if len(job.data[spec.dataset].features)]
        controls = controls_of(with_features) if options.control == "shuffled" else []
        return [*output.more(runs, job.data, options.noise), *controls]

    specs = [*job.specs, *([] if searched else more_runs(job.specs))]
    plan = make_plan(specs, job.store, job.data, options.overwrite, job.execution)
    store = _sink(options, job)
    _announce(options, len(specs), plan, searched)
    if options.dry_run:
        return OK
    console = terminal()

    def run_all(plan: Plan) -> list[Failure]:
        progress = make_progress(console)
        return execute(plan, store, job.data, progress, runner or run, job.execution, options.profile)

    failures = run_all(plan)
    if store is not job.store:
        return FAILED if failures else OK
    table = list(job.specs)
    if searched is not None:
        failures += searched.run(make_progress(console))
        table += [spec for tuned in searched.selections() for spec in tuned.specs()]
        failures += run_all(make_plan(more_runs(table), job.store, job.data, execution=job.execution))
    if options.control == "shuffled":
        table += [spec for spec in more_runs(table) if spec.control != "none"]
    suffix = f"{options.profile}-{options.protocol}" + fault_suffix(options.dropout, options.stragglers)
    fingerprints = {name: data.fingerprint for name, data in job.data.items()}
    modalities = {name: list(data.features) for name, data in job.data.items()}
    output.finish(
        FinishedRuns(
            specs=table,
            rows=job.rows,
            datasets=job.datasets,
            fingerprints=fingerprints,
            modalities=modalities,
            store=job.store,
            profile=options.profile,
            protocol=options.protocol,
            suffix=suffix,
            noise=options.noise,
            console=console,
            say=say,
        )
    )
    for failure in failures:
        spec = failure.spec
        print(f"error: {spec.dataset} {spec.row}, seed {spec.seed}: {failure.message}", file=sys.stderr)
    return FAILED if failures else OK


def _sink(options: Options, job: TableRequest) -> ResultsStore:
    """Where this process stores its runs: under torchrun only rank 0 writes to the results folder."""
    import tempfile

    import torch

    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.federation.distributed import join_processes

    processes = join_processes(torch.device(options.device))
    if processes.size > 1 and job.cells:
        raise ConfigError(
            "a search does not run under torchrun: its processes share trials through the storage instead; start the "
            "same command several times without torchrun, or add --search none"
        )
    processes.gather(None)  # nobody stores anything before everybody has planned
    return job.store if processes.is_main else ResultsStore(Path(tempfile.mkdtemp(prefix="fedvlr-rank-")))


def _open_tuner(options: Options, job: TableRequest, runner: Runner) -> Tuner:
    """Open the studies; `--overwrite` other than only-missing makes no sense for them and is refused."""
    import logging

    import optuna

    from fedvlr_plugin.errors import ConfigError
    from fedvlr_plugin.search.storage import open_storage
    from fedvlr_plugin.search.tuner import Tuner

    if options.overwrite != "only-missing":
        raise ConfigError(
            f"--overwrite {options.overwrite} cannot be used with a search, whose finished trials are always kept; "
            "choose another --results DIR to start anew, or --search none"
        )
    optuna.logging.set_verbosity(logging.WARNING)
    storage = open_storage(options.storage or f"sqlite:///{job.store.study_database}")
    return Tuner(job.cells, job.data, job.store, storage, runner, job.execution, options.profile)


def _announce(options: Options, total: int, plan: Plan, tuner: Tuner | None) -> None:
    """What will be done and what it will cost."""
    from fedvlr_plugin.experiment.estimate import format_seconds

    cost = f", about {format_seconds(sum(plan.seconds))}" if plan.todo else ""
    what = "runs" if tuner is None else "runs of floors"
    say(f"{len(plan.todo)} {what} to do{cost}; {plan.stored} of {total} stored in '{options.results}'.")
    if tuner is None:
        return
    weights = tuner.weights()
    cost = f", about {format_seconds(sum(weights))} for one worker" if weights else ""
    say(f"{len(tuner.cells)} cells to search: {len(weights)} trials and runs to do{cost}.")


def report(argv: Sequence[str], prog: str = "report.py") -> int:
    """Write the page about a results folder.

    Args:
        argv: the words after the command.
        prog: the command, for messages.

    Returns:
        0, or 2 with one line on stderr if it cannot be made.
    """
    parser = argparse.ArgumentParser(prog=prog, description="One self-contained HTML page about a results folder.")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="results folder (default: results)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="page to write; default: report.html in the results folder"
    )
    options = parser.parse_args(list(argv))
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.files import write_atomic
    from fedvlr_plugin.reporting.html.report import build_report

    store = ResultsStore(options.results)
    output = options.output or store.report
    try:
        write_atomic(output, build_report(store).encode())
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Written: '{output}'.")
    return 0


def draw_stored(options: Options, name: str, say: Callable[[str], None]) -> None:
    """Show an output as far as it is stored, and write its files.

    Args:
        options: the request.
        name: of the output.
        say: prints one line.

    Raises:
        ResultsError: nothing of what was asked for is stored, or a file is damaged.
        ConfigError: rows that the output cannot show, or unknown ones.
    """
    from fedvlr_plugin.experiment.rows import REFERENCES, check_rows
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.reporting.output import FinishedRuns
    from fedvlr_plugin.reporting.results_table import count_others, left_out, main_versions
    from fedvlr_plugin.reporting.stored_runs import in_order, stored_specs
    from fedvlr_plugin.reporting.table_formats import terminal

    _refuse_work(options)
    store, output = ResultsStore(options.results), runs_output(name)
    references = REFERENCES if output.references else ()
    rows = set(check_rows([*references, *(options.rows or output.rows())]))
    specs = [
        spec
        for spec in stored_specs(store, options.profile, options.protocol, options.settings, output.searched)
        if spec.row in rows and (options.datasets is None or spec.dataset in options.datasets)
    ]
    records = store.records({spec.spec_hash for spec in specs})
    if not records:
        raise ResultsError(
            f"'{options.results}' holds no run of profile {options.profile}, protocol {options.protocol}, for these rows "
            "and data sets; leave --stored out to have them made"
        )
    there = {(record.row, record.dataset) for record in records}
    specs = [spec for spec in specs if (spec.row, spec.dataset) in there]
    fingerprints = main_versions(records)
    for line in left_out(count_others(records, fingerprints)):
        say(line)
    shown = in_order({spec.row for spec in specs})
    output.check(shown)
    output.finish(
        FinishedRuns(
            specs=specs,
            rows=shown,
            datasets=list(options.datasets or sorted(fingerprints)),
            fingerprints=fingerprints,
            modalities={record.dataset: list(record.data.modalities) for record in records},
            store=store,
            profile=options.profile,
            protocol=options.protocol,
            suffix=f"{options.profile}-{options.protocol}" + ("-part" if options.rows or options.datasets else ""),
            noise=options.noise,
            console=terminal(),
            say=say,
        )
    )


def _refuse_work(options: Options) -> None:
    """Refuse options about runs, which would be ignored here."""
    about_runs = options.given(
        "seeds", "search", "trials", "storage", "pruning", "keep", "overwrite", "checkpoint_every", "dropout", "stragglers",
        "dry_run", "control",
    )  # fmt: skip
    for name in about_runs:
        raise ConfigError(f"{name} is about runs, and --stored makes none; leave one of the two out")
