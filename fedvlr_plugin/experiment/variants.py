"""Runs derived from another run: a level of noise, faults, a modality or the ID table left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedvlr_plugin.config import Faults, Privacy, RunSpec
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.profiles import spec_with
from fedvlr_plugin.experiment.rows import REFERENCES, parse_row


@dataclass(frozen=True)
class Level:
    """One amount of noise: its name in the table and the condition, None for no noise."""

    name: str
    privacy: Privacy | None


def levels(options: NoiseOptions) -> list[Level]:
    """No noise first, then what the options ask for, the smallest epsilon last."""
    found = [Level("none", None)]
    if "paper" in options.noise:
        found.append(Level("paper", Privacy(mechanism="paper_noise", noise_scale=options.noise_scale)))
    if "accounted" in options.noise:
        for epsilon in sorted(options.epsilons, reverse=True):
            privacy = Privacy(
                epsilon=epsilon, delta=options.delta, clip=options.clip, adaptive_quantile=options.adaptive_quantile
            )
            found.append(Level(f"ε {epsilon:g}", privacy))
    return found


def at_level(spec: RunSpec, level: Level) -> RunSpec:
    """The run with the level's noise, all else equal; a floor learns nothing and stays as it is."""
    if level.privacy is None or spec.row in REFERENCES:
        return spec
    return spec.model_copy(update={"conditions": spec.conditions.model_copy(update={"privacy": level.privacy})})


def noisy_runs(specs: Sequence[RunSpec], wanted: Sequence[Level]) -> list[RunSpec]:
    """The runs of the table beyond those without noise, level by level."""
    trained = [spec for spec in specs if spec.row not in REFERENCES]
    return [at_level(spec, level) for level in wanted if level.privacy is not None for spec in trained]


FULL = "full"


def leave_one_out(spec: RunSpec, modalities: Sequence[str]) -> dict[str, RunSpec]:
    """Variant name -> specification. Only rows that fuse contents with the ID table have variants but `full`."""
    variants = {FULL: spec}
    if parse_row(spec.row).fusion not in ("mlp", "blfm"):
        return variants
    used = list(spec.model.modalities) if spec.model.modalities is not None else list(modalities)
    for name in used:
        rest = tuple(other for other in used if other != name)
        variants[f"w/o {name}"] = spec_with(spec, {"modalities": rest})
    if used:
        variants["w/o id"] = spec_with(spec, {"id_embedding": False})
    return variants


def all_variants(specs: Sequence[RunSpec], modalities: Mapping[str, Sequence[str]]) -> dict[str, list[RunSpec]]:
    """Variant name -> the runs of all rows, data sets and seeds that have it; `modalities` by data set."""
    found: dict[str, list[RunSpec]] = {}
    for spec in specs:
        for name, variant in leave_one_out(spec, modalities[spec.dataset]).items():
            found.setdefault(name, []).append(variant)
    return found


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
