"""`run_table2.py`, `run_table4.py`, `run_figure2.py`, `run_figure3.py`: options in, runs done, product out. Returns the exit status.

Heavy modules are imported after the options are parsed, behind the first line of output. What is checked before any
work is in `request`.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.cli.options import Options, parse_options
from fedvlr_plugin.errors import ConfigError, FedVLRError, ResultsError, unknown_name

if TYPE_CHECKING:
    from fedvlr_plugin.cli.request import Sources, TableRequest
    from fedvlr_plugin.config import RunSpec
    from fedvlr_plugin.experiment.execution import Failure, Plan, Runner
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.reporting.table3 import Cell
    from fedvlr_plugin.search.tuner import Tuner

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
            draw_stored(options, product, say)
            return OK
        return _work(options, product, sources, runner)
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


def _work(options: Options, product: str, sources: Sources | None, runner: Runner | None) -> int:
    from fedvlr_plugin.cli.request import default_sources, prepare
    from fedvlr_plugin.experiment.controls import controls_of
    from fedvlr_plugin.experiment.execution import execute, make_plan
    from fedvlr_plugin.experiment.progress import make_progress
    from fedvlr_plugin.experiment.run import run
    from fedvlr_plugin.experiment.variants import fault_suffix
    from fedvlr_plugin.reporting.grid import terminal
    from fedvlr_plugin.reporting.output import FinishedRuns
    from fedvlr_plugin.reporting.outputs import get_output

    job = prepare(options, sources or default_sources(), product, say)
    searched = _open_tuner(options, job, runner or run) if job.cells else None
    wanted = get_output(product, options.noise)

    def more(runs: Sequence[RunSpec]) -> list[RunSpec]:
        """What the output needs beyond the rows' own runs, their controls among it."""
        featured = [spec for spec in runs if len(job.data[spec.dataset].features)]
        controls = controls_of(featured) if options.control == "shuffled" else []
        return [*wanted.more(runs, job.data), *controls]

    specs = [*job.specs, *([] if searched else more(job.specs))]
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
        failures += do(make_plan(more(table), job.store, job.data, execution=job.execution))
    if options.control == "shuffled":
        table += [spec for spec in more(table) if spec.control != "none"]
    suffix = f"{options.profile}-{options.protocol}" + fault_suffix(options.dropout, options.stragglers)
    fingerprints = {name: data.fingerprint for name, data in job.data.items()}
    modalities = {name: list(data.features) for name, data in job.data.items()}
    wanted.finish(
        FinishedRuns(
            table, job.rows, job.datasets, fingerprints, modalities, job.store, options.profile, suffix, console, say
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
    """Opens the studies; `--overwrite` other than only-missing makes no sense for them and is refused."""
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
    storage = open_storage(options.storage or f"sqlite:///{options.results / 'studies.db'}")
    return Tuner(job.cells, job.data, job.store, storage, runner, job.execution, options.profile)


def _announce(options: Options, total: int, plan: Plan, tuner: Tuner | None) -> None:
    """What will be done and what it will cost."""
    from fedvlr_plugin.experiment.estimate import spell_seconds

    cost = f", about {spell_seconds(sum(plan.seconds))}" if plan.todo else ""
    what = "runs" if tuner is None else "runs of floors"
    say(f"{len(plan.todo)} {what} to do{cost}; {plan.stored} of {total} stored in '{options.results}'.")
    if tuner is None:
        return
    weights = tuner.weights()
    cost = f", about {spell_seconds(sum(weights))} for one worker" if weights else ""
    say(f"{len(tuner.cells)} cells to search: {len(weights)} trials and runs to do{cost}.")


def report(argv: Sequence[str], prog: str = "report.py") -> int:
    """Writes the page; 0, or 2 with one line on stderr if it cannot be made."""
    parser = argparse.ArgumentParser(prog=prog, description="One self-contained HTML page about a results folder.")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RESULTS/report.html")
    options = parser.parse_args(list(argv))
    output = options.output or options.results / "report.html"
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.files import write_atomic
    from fedvlr_plugin.reporting.html_report import build_report

    try:
        write_atomic(output, build_report(ResultsStore(options.results)).encode())
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Written: '{output}'.")
    return 0


def draw_stored(options: Options, product: str, say: Callable[[str], None]) -> None:
    """Shows a product and writes its files.

    Raises:
        ResultsError: nothing of what was asked for is stored, or a file is damaged.
        ConfigError: rows that the product cannot show, or unknown ones.
    """
    from fedvlr_plugin.experiment.rows import REFERENCES, check_rows
    from fedvlr_plugin.experiment.store import ResultsStore
    from fedvlr_plugin.reporting.grid import terminal
    from fedvlr_plugin.reporting.output import FinishedRuns
    from fedvlr_plugin.reporting.outputs import get_output
    from fedvlr_plugin.reporting.results_table import count_others, left_out, main_versions
    from fedvlr_plugin.reporting.stored_runs import in_order, stored_specs

    _refuse_work(options)
    store, wanted = ResultsStore(options.results), get_output(product, options.noise)
    references = REFERENCES if wanted.references else ()
    rows = set(check_rows([*references, *(options.rows or wanted.rows())]))
    specs = [
        spec
        for spec in stored_specs(store, options.profile, options.protocol, options.settings)
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
    wanted.check(shown)
    wanted.finish(
        FinishedRuns(
            specs=specs,
            rows=shown,
            datasets=list(options.datasets or sorted(fingerprints)),
            fingerprints=fingerprints,
            modalities={record.dataset: list(record.data.modalities) for record in records},
            store=store,
            profile=options.profile,
            suffix=f"{options.profile}-{options.protocol}" + ("-part" if options.rows or options.datasets else ""),
            console=terminal(),
            say=say,
        )
    )


def _refuse_work(options: Options) -> None:
    """Options about runs would be ignored here, so they are refused."""
    given = {
        "--seeds": options.seeds is not None,
        "--search": options.search is not None,
        "--trials": options.trials is not None,
        "--storage": options.storage is not None,
        "--pruning": options.pruning,
        "--keep": bool(options.keep),
        "--overwrite": options.overwrite != "only-missing",
        "--checkpoint-every": options.checkpoint_every is not None,
        "--dropout": options.dropout > 0.0,
        "--stragglers": options.stragglers > 0.0,
        "--dry-run": options.dry_run,
        "--control": options.control != "none",
    }
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(f"{name} is about runs, and --stored makes none; leave one of the two out")


HEAD = ["row", "data set", "paper K", "closed form", "agreement", "private", "private item rows", "received", "sent",
        "down MB", "up MB"]  # fmt: skip
NOTE = """paper K: thousands of client parameters as printed in Table 3; closed form: spec of the paper's own counting.
private, private item rows (at most), received, sent: numbers counted from the tensors of one live client here
(float32; one broadcast and one full upload a round). FedNCF and VBPR count every user's vectors in the paper's form."""


def table3(argv: Sequence[str], prog: str = "run_table3.py") -> int:
    """Prints the table; 0, or 2 with one line on stderr for a request that cannot be carried out."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Table 3: client parameters, the paper's beside the closed form and a live client's. Trains nothing.",
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="of the paper's seven; default: all")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args(list(argv))
    from tabulate import tabulate

    from fedvlr_plugin.files import write_atomic
    from fedvlr_plugin.paper.tables import DATASETS
    from fedvlr_plugin.reporting.table3 import table3

    try:
        chosen = [name.lower() for name in options.datasets or DATASETS]
        for name in chosen:
            if name not in DATASETS:
                raise unknown_name("data set", name, DATASETS)
        cells = [cell for cell in table3() if cell.dataset.lower() in chosen]
        body = [_line(cell) for cell in cells]
        if options.csv is not None:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([HEAD, *body])
            write_atomic(options.csv, text.getvalue().encode(), hint="Name a file that you may write with --csv FILE")
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(tabulate(body, headers=HEAD, disable_numparse=True))
    odd = [f"{c.row} on {c.dataset} ({c.verdict.removeprefix('ODD: ')})" for c in cells if c.verdict != "follows"]
    print(f"\n{len(cells) - len(odd)} of {len(cells)} cells follow the closed form. Odd: {'; '.join(odd) or 'none'}.")
    print(NOTE)
    return 0


def _line(cell: Cell) -> list[str]:
    """The cell as it is spelled in the table and in the CSV."""
    held = cell.held
    numbers = (held.private, held.own_rows, held.received, held.sent)
    sizes = (held.received_bytes, held.sent_bytes)
    return [
        cell.row,
        cell.dataset,
        str(cell.paper_thousands),
        f"{cell.closed_form:,}",
        cell.verdict,
        *(f"{number:,}" for number in numbers),
        *(f"{size / 2**20:.2f}" for size in sizes),
    ]
