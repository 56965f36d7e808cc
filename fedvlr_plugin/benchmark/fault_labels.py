"""Drop-outs and stragglers on the way from a command line into runs, and into the names and captions of tables.

Imports `config`, `conditions`, `rows`, `record`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.experiment.record import RunRecord


def fault_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line for a caption per kind of faults that some of the runs met."""
    found = dict.fromkeys(
        record.spec.conditions.faults for record in records if record.spec.conditions.faults is not None
    )
    return [
        f"Faults: each round {f.dropout:.0%} of the cohort dropped out, {f.stragglers:.0%} of the rest answered too late."
        for f in found
    ]
