"""A checked request: everything that can be refused is refused here, before any work is done.

Names, settings, device, results folder, data; in this order, so that what is cheap to find is found first. This module
imports heavy ones, so `cli.tables` imports it late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedvlr_plugin.cli.options import Options
from fedvlr_plugin.config import ExecutionConfig, RunSpec, build_config
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.devices import check_device
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.profiles import Profile, get_profile, specs_for
from fedvlr_plugin.experiment.rows import CLOSED_FORMS, NEED_CONTENT, REFERENCES, check_rows
from fedvlr_plugin.experiment.run import check_spec
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import with_faults
from fedvlr_plugin.paper.tables import display_name, published
from fedvlr_plugin.reporting.output import RunsOutput
from fedvlr_plugin.search.tuner import Cell, cells_for


@dataclass(frozen=True)
class Sources:
    """Where data sets come from; tests put their own in place.

    Attributes:
        default: names to use when the user gives none.
        check: canonical name, raises for an unknown one.
        load: reads and prepares one.
    """

    default: Callable[[Path | None], list[str]]
    check: Callable[[str, Path | None], str]
    load: Callable[[str, Path | None], PreparedData]


def default_sources() -> Sources:
    """The catalogue of data sets."""
    from fedvlr_plugin.data.recbole.loader import check, default, load

    return Sources(default, check, load)


@dataclass(frozen=True)
class TableRequest:
    """A checked request.

    Attributes:
        rows, datasets: canonical names, in the table's order.
        specs: runs without a search (all of them, or the floors).
        cells: what is searched first.
        data: by name.
        store: where results go.
        execution: how runs are executed.
    """

    rows: tuple[str, ...]
    datasets: tuple[str, ...]
    specs: tuple[RunSpec, ...]
    cells: tuple[Cell, ...]
    data: Mapping[str, PreparedData]
    store: ResultsStore
    execution: ExecutionConfig


def prepare(options: Options, sources: Sources, output: RunsOutput, say: Callable[[str], None]) -> TableRequest:
    """Check everything, and read the data.

    Args:
        options: the request.
        sources: where data sets come from.
        output: what is to be shown.
        say: prints one line.

    Raises:
        FedVLRError: the first thing that is wrong, before any work is done.
    """
    profile = get_profile(options.profile)
    rows = check_rows([*(REFERENCES if output.references else ()), *(options.rows or output.rows())])
    output.check(rows)
    if options.control != "none" and not output.controls:
        raise ConfigError(f"--control {options.control} is for Table 2, which shows controls; leave it out here")
    names = options.datasets or profile.datasets or output.datasets or tuple(sources.default(options.data_root))
    datasets = list(dict.fromkeys(sources.check(name, options.data_root) for name in names))
    check_search(options, profile)
    is_searched = searches(options, profile)
    if is_searched and not output.searched:
        if options.search is not None:
            raise ConfigError(f"{output.title} uses the settings of the profile; leave --search {options.search} out")
        is_searched = False
    searched = [row for row in rows if row not in CLOSED_FORMS] if is_searched else []
    plain = [row for row in rows if row not in searched]
    seeds = options.seeds or profile.seeds
    specs = specs_for(profile, datasets, plain, seeds, options.protocol, options.settings)
    cells: list[Cell] = []
    if searched:
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
    keep = tuple(dict.fromkeys([*options.keep, *output.keep]))
    execution = build_config(
        ExecutionConfig, {"engine": options.engine, "device": options.device, "keep": keep, **budget}
    )
    store = ResultsStore(options.results)
    store.check_writable()
    data = {}
    for name in datasets:
        data[name] = sources.load(name, options.data_root)
        say(f"  {summary_line(data[name])}")
    specs = _with_content(specs, data, say)
    for spec in specs:
        check_spec(spec, execution, data[spec.dataset].interactions.n_items)
    return TableRequest(tuple(rows), tuple(datasets), tuple(specs), tuple(cells), data, store, execution)


def _with_content(specs: list[RunSpec], data: Mapping[str, PreparedData], say: Callable[[str], None]) -> list[RunSpec]:
    """Return the runs without those that score by content on data without item features; say which were left out."""
    left_out: dict[str, list[str]] = {}
    kept = []
    for spec in specs:
        if spec.row in NEED_CONTENT and not len(data[spec.dataset].features):
            left_out.setdefault(spec.dataset, []).append(spec.row)
        else:
            kept.append(spec)
    for name, rows in left_out.items():
        say(f"  {name} has no item features: without {', '.join(rows)}")
    return kept


def searches(options: Options, profile: Profile) -> bool:
    """Whether parameters are searched: as the user says, else as the profile does."""
    return options.search != "none" if options.search else bool(profile.search)


def check_search(options: Options, profile: Profile) -> None:
    """Refuse options of a search where there is none, and a database out of reach, before any work.

    Raises:
        ConfigError: names the option.
    """
    if not searches(options, profile):
        for name in options.given("storage", "trials", "pruning"):
            raise ConfigError(
                f"{name} is an option of a search, and here is none (profile '{profile.name}', --search "
                f"{options.search or 'not given'}); add --search tpe or --search grid"
            )
    if options.storage is not None:
        from fedvlr_plugin.search.storage import check_url

        check_url(options.storage)


def summary_line(data: PreparedData) -> str:
    """`ku: 204 users, 560 items, 3489 interactions (as Table 1); text 512, image 512`."""
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
