"""A checked request: everything that can be refused is refused here, before any work is done.

Names, settings, device, results folder, data; in this order, so that what is cheap to find is found first. This module
imports heavy ones, so `cli.tables` imports it late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedvlr_plugin.cli.options import Options, check_search, searches
from fedvlr_plugin.config import ExecutionConfig, RunSpec, build_config
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.devices import check_device
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.profiles import get_profile, specs_for
from fedvlr_plugin.experiment.rows import CLOSED_FORMS, NEED_CONTENT, REFERENCES, check_rows
from fedvlr_plugin.experiment.run import check_spec
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import with_faults
from fedvlr_plugin.paper.tables import display_name, published
from fedvlr_plugin.reporting.outputs import get_output
from fedvlr_plugin.search.tuner import Cell, cells_for


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


def default_sources() -> Sources:
    """The catalogue of data sets."""
    from fedvlr_plugin.data.recbole.loader import check, default, load

    return Sources(default, check, load)


@dataclass(frozen=True)
class TableRequest:
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


def prepare(options: Options, sources: Sources, product: str, say: Callable[[str], None]) -> TableRequest:
    """Checks everything; raises `FedVLRError` for the first thing that is wrong, before any work is done."""
    profile = get_profile(options.profile)
    wanted = get_output(product, options.noise)
    rows = check_rows([*(REFERENCES if wanted.references else ()), *(options.rows or wanted.rows())])
    wanted.check(rows)
    if options.control != "none" and not wanted.controls:
        raise ConfigError(f"--control {options.control} is for Table 2, which shows controls; leave it out here")
    names = options.datasets or profile.datasets or wanted.datasets or tuple(sources.default(options.data_root))
    datasets = list(dict.fromkeys(sources.check(name, options.data_root) for name in names))
    check_search(options, profile)
    searched = [r for r in rows if r not in CLOSED_FORMS] if searches(options, profile) else []
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
    specs = _with_content(specs, data, say)
    for spec in specs:
        check_spec(spec, execution, data[spec.dataset].interactions.n_items)
    return TableRequest(tuple(rows), tuple(datasets), tuple(specs), tuple(cells), data, store, execution)


def _with_content(specs: list[RunSpec], data: Mapping[str, PreparedData], say: Callable[[str], None]) -> list[RunSpec]:
    """The runs without those that score by content on data without item features; says which were left out."""
    left: dict[str, list[str]] = {}
    kept = []
    for spec in specs:
        if spec.row in NEED_CONTENT and not len(data[spec.dataset].features):
            left.setdefault(spec.dataset, []).append(spec.row)
        else:
            kept.append(spec)
    for name, rows in left.items():
        say(f"  {name} has no item features: without {', '.join(rows)}")
    return kept


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
