"""Table 4 as data: every row without noise, with the paper's noise, and with noise of a stated epsilon.

A noisy run has the settings of the run without noise, rounds and learning rates included, and the privacy condition
on top. Each is compared with it on the same users (paired randomization test over users, so of these trained
models; Holm over the lines of a data set).

`stored_lines` finds out from the results folder alone which noise there is. Noisy runs count where their settings, the noise
aside, are those of a run of the profile's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedvlr_plugin.config import Privacy, RunSpec
from fedvlr_plugin.evaluation.randomization import sign_flip_tests
from fedvlr_plugin.evaluation.significance import ALPHA, holm
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import REFERENCES
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import Level, at_level
from fedvlr_plugin.paper.tables import METRICS, Metric, published
from fedvlr_plugin.reporting.comparisons import FloatArray, per_user, rng_for
from fedvlr_plugin.reporting.results_table import Cell, Figure, Table, build_table
from fedvlr_plugin.reporting.stored_runs import stored_specs

PAPER_DATASET = "ku"
COLUMNS: Mapping[Metric, str] = {"hr@50": "HR", "ndcg@50": "NDCG"}


@dataclass(frozen=True)
class Line:
    """A row on a data set at one level.

    Attributes:
        cell: its runs, None if nothing is stored.
        degrade: what the noise costs, in percent of the figure without noise; None where either is missing.
        worse: True or False for a significant difference to the run without noise, None for none.
    """

    dataset: str
    row: str
    level: Level
    cell: Cell | None
    degrade: Mapping[Metric, float | None]
    worse: Mapping[Metric, bool | None]

    def figure(self, metric: Metric) -> Figure | None:
        """The number, None if nothing is stored."""
        return None if self.cell is None else self.cell.figures[metric]


@dataclass(frozen=True)
class Published:
    """A line of the paper's Table 4: percent without and with noise, and what the noise costs in percent."""

    row: str
    metric: Metric
    without: float
    noisy: float
    degrade: float


def table4_lines(
    store: ResultsStore, specs: Sequence[RunSpec], wanted: Sequence[Level], fingerprints: Mapping[str, str]
) -> list[Line]:
    """All lines from the results store, by data set and row, the levels in their order; floors have one line."""
    tables = {level: build_table(store, [at_level(spec, level) for spec in specs], fingerprints) for level in wanted}
    without = tables[wanted[0]]
    keys = [(row, dataset) for dataset in without.datasets for row in without.rows]
    costs: dict[tuple[str, str, str, Metric], bool | None] = {}
    for name in without.datasets:
        costs |= _compare(store, tables, wanted, [(row, dataset) for row, dataset in keys if dataset == name])
    lines = []
    for row, dataset in keys:
        for level in wanted if row not in REFERENCES else wanted[:1]:
            cell, base = tables[level].cells.get((row, dataset)), without.cells.get((row, dataset))
            degrade: dict[Metric, float | None] = {}
            for metric in METRICS:
                before = None if base is None or level.privacy is None else base.figures[metric].mean
                known = cell is not None and before is not None and before > 0
                degrade[metric] = 100 * (1 - cell.figures[metric].mean / before) if known and cell and before else None
            worse = {metric: costs.get((row, dataset, level.name, metric)) for metric in METRICS}
            lines.append(Line(dataset, row, level, cell, degrade, worse))
    return lines


def _compare(
    store: ResultsStore, tables: Mapping[Level, Table], wanted: Sequence[Level], keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str, str, Metric], bool | None]:
    """Whether each noisy cell is worse (True), better (False) or neither (None) than the one without noise."""
    keys_found: list[tuple[str, str, str, Metric]] = []
    differences: list[FloatArray] = []
    for row, dataset in keys:
        base = tables[wanted[0]].cells.get((row, dataset))
        for level in wanted[1:]:
            cell = tables[level].cells.get((row, dataset))
            if base is None or cell is None or row in REFERENCES:
                continue
            ours, theirs = per_user(store, cell.records), per_user(store, base.records)
            for metric in METRICS:
                keys_found.append((row, dataset, level.name, metric))
                differences.append(ours.values[metric] - theirs.values[metric])
    tests = sign_flip_tests(differences, rng_for("noise", *(part for key in keys_found for part in key)))
    adjusted = holm([test.p for test in tests])
    return {
        key: float(difference.mean()) < 0 if p < ALPHA else None
        for key, difference, p in zip(keys_found, differences, adjusted, strict=True)
    }


def published4() -> list[Published]:
    """The paper's Table 4, which is about KU and the +ours rows."""
    metrics = {name: metric for metric, name in COLUMNS.items()}
    return [
        Published(
            f"{line['model']}+ours",
            metrics[line["metric"]],
            float(line["ours"]),
            float(line["ours_with_noise"]),
            float(line["degrade_percent"]),
        )
        for line in published(4)
    ]


def records_of(lines: Sequence[Line]) -> list[RunRecord]:
    """All runs behind some lines."""
    return [record for line in lines if line.cell is not None for record in line.cell.records]


def stored_lines(store: ResultsStore, profile: str, protocol: str) -> list[Line]:
    """The lines of Table 4 that a profile and a protocol have; none where no noisy run is stored."""
    noisy = [r for r in store.records() if r.privacy is not None and (r.profile, r.protocol) == (profile, protocol)]
    if not noisy:
        return []
    hashes = {record.spec_hash for record in noisy}
    found = {p.model_dump_json(): p for p in (r.spec.conditions.privacy for r in noisy) if p is not None}
    wanted = named_levels(found.values())
    specs = stored_specs(store, profile, protocol)
    trained = [s for s in specs if s.row not in REFERENCES and hashes & {at_level(s, w).spec_hash for w in wanted[1:]}]
    datasets = {spec.dataset for spec in trained}
    floors = [spec for spec in specs if spec.row in REFERENCES and spec.dataset in datasets]
    fingerprints = {record.dataset: record.data.fingerprint for record in noisy}
    return table4_lines(store, [*floors, *trained], wanted, fingerprints) if trained else []


def named_levels(conditions: Iterable[Privacy]) -> list[Level]:
    """No noise first, the paper's, then by falling epsilon; a name that two would share is made longer."""
    ordered = sorted(conditions, key=_order)
    names = [_name(privacy) for privacy in ordered]
    times = Counter(names)
    longer = [name if times[name] == 1 else name + _more(p) for name, p in zip(names, ordered, strict=True)]
    return [Level("none", None), *(Level(name, p) for name, p in zip(longer, ordered, strict=True))]


def _order(privacy: Privacy) -> tuple[bool, float, float, str]:
    return (
        privacy.mechanism != "paper_noise",
        -(privacy.epsilon or 0.0),
        privacy.noise_multiplier or privacy.noise_scale or 0.0,
        privacy.model_dump_json(),
    )


def _name(privacy: Privacy) -> str:
    if privacy.mechanism == "paper_noise":
        return "paper"
    return f"ε {privacy.epsilon:g}" if privacy.epsilon is not None else f"z {privacy.noise_multiplier:g}"


def _more(privacy: Privacy) -> str:
    if privacy.mechanism == "paper_noise":
        return f" {privacy.noise_scale:g}"
    quantile = "" if privacy.adaptive_quantile is None else f", quantile {privacy.adaptive_quantile:g}"
    delta = "" if privacy.delta is None else f", δ {privacy.delta:g}"
    return f", C {privacy.clip:g}{quantile}{delta}"
