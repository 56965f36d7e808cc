"""What a table or figure of `fedvlr` is: drawn from stored runs (`RunsOutput`) or computed anew (`ComputedOutput`).

A package outside adds one with an entry point of the group `fedvlr_plugin.outputs` that names an object of either kind:

    [project.entry-points."fedvlr_plugin.outputs"]
    scatter = "my_package.scatter:SCATTER"          # gives the sub-command `fedvlr scatter`

This module imports nothing heavy, so that a command line can be parsed at once.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from fedvlr_plugin.config import RunSpec
    from fedvlr_plugin.data.prepared import PreparedData
    from fedvlr_plugin.experiment.noise_options import NoiseOptions
    from fedvlr_plugin.experiment.record import RunRecord
    from fedvlr_plugin.experiment.store import ResultsStore


@dataclass(frozen=True)
class FinishedRuns:
    """Finished runs, and where to show them.

    Attributes:
        specs: the runs without those that `RunsOutput.more` adds.
        rows: names of the rows, in the table's order.
        datasets: names of the data sets, in the table's order.
        fingerprints: of the data that the runs were made on, by data set.
        modalities: names of the item features, by data set.
        store: where the runs are, and where the files of the output go (`store.tables`, `store.figures`).
        profile: name of the profile.
        protocol: name of the evaluation protocol.
        suffix: for file names: the profile, the protocol, and what else sets these runs apart.
        noise: what noise to show; only an output with `with_noise` looks at it.
        console: where tables are printed.
        say: prints one line.
    """

    specs: Sequence[RunSpec]
    rows: Sequence[str]
    datasets: Sequence[str]
    fingerprints: Mapping[str, str]
    modalities: Mapping[str, Sequence[str]]
    store: ResultsStore
    profile: str
    protocol: str
    suffix: str
    noise: NoiseOptions
    console: Console
    say: Callable[[str], None]

    def records(self) -> list[RunRecord]:
        """Return the stored records of `specs`."""
        return self.store.records({spec.spec_hash for spec in self.specs})


def accept_rows(rows: Sequence[str]) -> None:
    """Accept any rows: the `check` of an output that can show them all."""


def no_more_runs(specs: Sequence[RunSpec], data: Mapping[str, PreparedData], noise: NoiseOptions) -> list[RunSpec]:
    """Return no runs: the `more` of an output that needs the plain ones only."""
    return []


@dataclass(frozen=True)
class RunsOutput:
    """A table or figure that is drawn from stored runs; what is missing is run first.

    Attributes:
        title: names it to the user, e.g. `Table 2`.
        rows: returns the rows it shows unless the user names some.
        finish: shows it and writes its files.
        check: raises `ConfigError` for rows that it cannot show, before any work.
        more: returns the runs it needs beside the plain ones, from these, the data sets by name, and the noise.
        keep: names of the private results that it is made of, stored beside the ranks (`router_weights`).
        datasets: data sets it shows unless the user names some; None = all that are found.
        searched: whether the runs' settings may be searched; False = always those of the profile.
        with_noise: whether the command line takes the options about noise.
        references: whether floors and yardsticks are shown whatever rows are asked for.
        controls: whether it can show shuffled controls.
    """

    title: str
    rows: Callable[[], list[str]]
    finish: Callable[[FinishedRuns], None]
    check: Callable[[Sequence[str]], None] = accept_rows
    more: Callable[[Sequence[RunSpec], Mapping[str, PreparedData], NoiseOptions], list[RunSpec]] = no_more_runs
    keep: tuple[str, ...] = ()
    datasets: tuple[str, ...] | None = None
    searched: bool = True
    with_noise: bool = False
    references: bool = False
    controls: bool = False


@dataclass(frozen=True)
class ComputedOutput:
    """A table or figure with options of its own, which computes what it shows each time.

    Its module should import heavy packages inside `make` only, so that a typing error is answered at once.

    Attributes:
        title: names it to the user.
        description: what it shows, for `--help`.
        add_options: adds its options to a parser.
        make: computes and shows it from the parsed options, with a function that prints one line. Raises `FedVLRError`
            for a request that cannot be carried out.
    """

    title: str
    description: str
    add_options: Callable[[ArgumentParser], None]
    make: Callable[[Namespace, Callable[[str], None]], None]


Output = RunsOutput | ComputedOutput
