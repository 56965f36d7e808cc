"""The registry of outputs: every table and figure by the name of its sub-command.

The built-in ones are listed here with a line for `fedvlr --help`; each stands in a file of its own, which is imported when
the output is asked for. Packages outside add theirs with entry points (see `output`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.registry import Registry
from fedvlr_plugin.reporting.output import ComputedOutput, Output, RunsOutput

GROUP = "fedvlr_plugin.outputs"


@dataclass(frozen=True)
class BuiltIn:
    """An output of this package.

    Attributes:
        title: as the output's own.
        summary: one line for `fedvlr --help`.
        place: where the output is, as `module:NAME`.
        options: what its command line takes: those of runs, those and the ones about noise, or its own.
    """

    title: str
    summary: str
    place: str
    options: Literal["runs", "noise", "own"] = "runs"


_ROOM = "fedvlr_plugin.reporting"
BUILT_IN: Mapping[str, BuiltIn] = {
    "table2": BuiltIn(
        "Table 2", "Fill in and print Table 2: accuracy of every row on every data set.", f"{_ROOM}.table2.output:TABLE2"
    ),
    "table3": BuiltIn(
        "Table 3", "Count client parameters beside the paper's Table 3; trains nothing.", f"{_ROOM}.table3:TABLE3", "own"
    ),
    "table4": BuiltIn(
        "Table 4", "Fill in and print Table 4: what noise and privacy cost.", f"{_ROOM}.table4.output:TABLE4", "noise"
    ),
    "figure2": BuiltIn(
        "Figure 2 (router weights)", "Draw router weights by user activity.", f"{_ROOM}.figure2:FIGURE2"
    ),
    "figure3": BuiltIn(
        "Figure 3 (parts left out)", "Leave out a modality or the ID table.", f"{_ROOM}.figure3:FIGURE3"
    ),
    "faults": BuiltIn(
        "Faults", "Measure what clients that drop out or answer too late cost.", f"{_ROOM}.faults:FAULTS"
    ),
    "attacks": BuiltIn(
        "Attacks", "Measure what lying clients do, and what robust rules save.", f"{_ROOM}.attacks:ATTACKS", "own"
    ),
}  # fmt: skip


def summaries() -> dict[str, str]:
    """Return a line about every output by name, built-in ones first. Nothing is imported for it."""
    lines = {name: built_in.summary for name, built_in in BUILT_IN.items()}
    for point in entry_points(group=GROUP):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an installed package"
        lines.setdefault(point.name, f"Output of the package {package}.")
    return lines


@functools.cache
def outputs() -> Registry[Output]:
    """Return the registry with the built-in outputs; the first look-up adds those of installed packages.

    Raises:
        ConfigError: on look-up, where a package outside takes a name that is taken.
    """
    registry: Registry[Output] = Registry("output", GROUP)
    for name, built_in in BUILT_IN.items():
        registry.add(name, _import_output(built_in.place))
    return registry


def get_output(name: str) -> Output:
    """Return the output called `name`.

    Raises:
        UnknownNameError: there is none; names the nearest one.
        ConfigError: a package outside registers something that is no output, or a name that is taken.
    """
    built_in = BUILT_IN.get(name)
    if built_in is not None and built_in.options == "own":
        return _import_output(built_in.place)  # its command line is parsed before anything heavy is imported
    found = outputs().get(name)
    if not isinstance(found, RunsOutput | ComputedOutput):
        raise ConfigError(
            f"the output '{name}' is {found!r}; an entry point of '{GROUP}' must name a RunsOutput or a ComputedOutput of "
            "fedvlr_plugin.reporting.output"
        )
    return found


def _import_output(place: str) -> Output:
    module, _, attribute = place.partition(":")
    found: Output = getattr(import_module(module), attribute)
    return found
