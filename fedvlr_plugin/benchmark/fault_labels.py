"""Drop-outs and stragglers on the way from a command line into runs, and into the names and captions of tables.

Imports `config`, `conditions`, `rows`, `record`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.benchmark.record import RunRecord
from fedvlr_plugin.benchmark.rows import parse_row
from fedvlr_plugin.config import Faults, RunSpec


def with_faults(spec: RunSpec, dropout: float, stragglers: float) -> RunSpec:
    """A federated run under faults; other rows, which have no clients that could fail, stay as they are."""
    if (dropout, stragglers) == (0.0, 0.0) or parse_row(spec.row).kind != "federated":
        return spec
    faults = Faults(dropout=dropout, stragglers=stragglers)
    return spec.model_copy(update={"conditions": spec.conditions.model_copy(update={"faults": faults})})


def fault_suffix(dropout: float, stragglers: float) -> str:
    """`-dropout30-stragglers10`, in percent, for file names; nothing without faults."""
    parts = (("dropout", dropout), ("stragglers", stragglers))
    return "".join(f"-{name}{100 * share:g}".replace(".", "p") for name, share in parts if share)


def fault_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line for a caption per kind of faults that some of the runs met."""
    found = dict.fromkeys(
        record.spec.conditions.faults for record in records if record.spec.conditions.faults is not None
    )
    return [
        f"Faults: each round {f.dropout:.0%} of the cohort dropped out, {f.stragglers:.0%} of the rest answered too late."
        for f in found
    ]
