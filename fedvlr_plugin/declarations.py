"""What a row of the tables declares about itself, for searches, profiles and estimates that do not know it by name.

A backbone gives these as class attributes (`backbones.base.Backbone`), a centralized model in
`centralized.model_registry`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Dimension:
    """One number that a search chooses, on a logarithmic scale.

    Attributes:
        name: name of the number in the study.
        values: the grid, ascending, all above 0; a sampler draws between the least and the greatest.
        sets: the settings that the number determines, each with its factor. `params.x` is the row's own parameter x.
    """

    name: str
    values: tuple[float, ...]
    sets: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ProfileRule:
    """Settings that a row asks for under one profile; they go over what the profile gives to all rows.

    Attributes:
        profile: name of the profile, e.g. `"quick"`.
        settings: fields of `TrainingConfig` or `ModelConfig`, `params` for the row's own parameters; in a rule for
            searches `method`, `trials`, `seeds` and `priority`.
        fusions: the fusions that the rule is for, where the row has no addition such as `& new-item prior`; None for
            every row of the backbone or model.
    """

    profile: str
    settings: Mapping[str, object]
    fusions: Collection[str] | None = None


class SecondsPerSample(NamedTuple):
    """Seconds per sample and local epoch on two cores, compiled: measured once, for estimates only.

    Attributes:
        id_view: of the vanilla row, and of "+VBPR".
        one_view: of "+MLP".
        routed: of "+ours".
    """

    id_view: float
    one_view: float
    routed: float


def rules_for(rules: Collection[ProfileRule], profile: str, fusion: str | None) -> list[Mapping[str, object]]:
    """Select the settings of the rules for a profile and a fusion, in the order of declaration.

    Args:
        rules: what a row declares.
        profile: name of the profile.
        fusion: the row's fusion, None for a row that is not federated or has an addition.
    """
    return [
        rule.settings for rule in rules if rule.profile == profile and (rule.fusions is None or fusion in rule.fusions)
    ]
