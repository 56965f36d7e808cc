"""Table 4 as far as it is stored: which noise there is, is found out from the results folder alone.

Noisy runs count where their settings, the noise aside, are those of a run of the profile's table. Imports `rebuild`
and `table4`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fedvlr_plugin.benchmark.rebuild import stored_specs
from fedvlr_plugin.benchmark.table4 import Line, table4_lines
from fedvlr_plugin.config import Privacy
from fedvlr_plugin.experiment.rows import FLOORS
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import Level, at_level


def stored_lines(store: ResultsStore, profile: str, protocol: str) -> list[Line]:
    """The lines of Table 4 that a profile and a protocol have; none where no noisy run is stored."""
    noisy = [r for r in store.records() if r.privacy is not None and (r.profile, r.protocol) == (profile, protocol)]
    if not noisy:
        return []
    hashes = {record.spec_hash for record in noisy}
    found = {p.model_dump_json(): p for p in (r.spec.conditions.privacy for r in noisy) if p is not None}
    wanted = named_levels(found.values())
    specs = stored_specs(store, profile, protocol)
    trained = [s for s in specs if s.row not in FLOORS and hashes & {at_level(s, w).spec_hash for w in wanted[1:]}]
    datasets = {spec.dataset for spec in trained}
    floors = [spec for spec in specs if spec.row in FLOORS and spec.dataset in datasets]
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
