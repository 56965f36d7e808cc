"""Table 4 for a page of text: one line per data set and row, one column per amount of noise. Imports `table4` and its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedvlr_plugin.benchmark.grids import Grid, Value
from fedvlr_plugin.benchmark.table4 import Line, records_of
from fedvlr_plugin.experiment.rows import FLOORS
from fedvlr_plugin.paper.tables import METRICS, display_name


def compact_grid(lines: Sequence[Line]) -> Grid:
    """HR@50 / NDCG@50 of every line, rows by levels; ▼ where the noise makes HR@50 significantly worse."""
    trained = [line for line in lines if line.row not in FLOORS]
    levels = list(dict.fromkeys(line.level.name for line in trained))
    found = {(line.dataset, line.row, line.level.name): line for line in lines}
    body = []
    for dataset, row in dict.fromkeys((line.dataset, line.row) for line in lines):
        places = levels if row not in FLOORS else ["none"]
        cells: list[Value] = [_cell(found.get((dataset, row, name))) for name in places]
        if not any(cells):
            continue
        seeds = {len(line.cell.records) for line in trained if (line.dataset, line.row) == (dataset, row) and line.cell}
        count = "" if not seeds else f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)}-{max(seeds)}"
        empty: list[Value] = ["" for _ in levels[len(places) :]]
        body.append((display_name(dataset), row, *cells, *empty, count))
    return Grid(
        ("data set", "row", *("no noise" if n == "none" else n for n in levels), "seeds"), tuple(body), _notes(trained)
    )


def _cell(line: Line | None) -> str | None:
    if line is None or line.cell is None:
        return None
    numbers = " / ".join(f"{line.cell.figures[metric].mean:.1f}" for metric in METRICS)
    return numbers + (" ▼" if line.worse["hr@50"] is True else "")


def _notes(lines: Sequence[Line]) -> tuple[str, ...]:
    records = records_of(lines)
    rounds, shares = ({getattr(r.spec.training, name) for r in records} for name in ("rounds", "participation"))
    notes = [
        "HR@50 / NDCG@50 on the test split in percent, means over seeds; – : not run. Rows of which nothing is stored are left out. ▼: HR@50 is worse than without "
        "noise at 5 % (paired randomisation test over users, Holm over the lines of a data set).",
        f"At most {_range(rounds)} rounds with a share of {_range(shares)} of the clients.",
    ]
    noisy = [record.privacy for record in records if record.privacy is not None]
    if any(found.epsilon is None for found in noisy):
        scales = sorted({found.noise_scale for found in noisy if found.noise_scale is not None})
        notes.append(f"Paper: noise of standard deviation {_range(scales)} on gradients that are not clipped, ε = ∞.")
    accounted = [found for found in noisy if found.epsilon is not None]
    if accounted:
        deltas = _range({found.delta for found in accounted if found.delta is not None})
        bounds = _range({found.clip for found in accounted if found.clip is not None})
        notes.append(f"ε: of the whole run, {accounted[0].adjacency}, δ = {deltas}, C = {bounds or 'adaptive'}.")
    return tuple(notes)


def _range(values: Iterable[float]) -> str:
    """`60` or `16 to 60`."""
    ordered = sorted(set(values))
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys([*ordered[:1], *ordered[-1:]]))
