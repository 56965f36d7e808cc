"""The form of one stored run: what its JSON file must hold, key by key. Version 1.

A record is built from a `RunResult` and refuses unknown keys, missing keys and numbers that are not finite, both
when it is written and when it is read.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.environment import Environment
from fedvlr_plugin.experiment.result import RunResult
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, guarantee_of

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataPart(_Part):
    """Which data: name, content hashes (split interactions; interactions with all features), sizes, widths.

    `sources` says by modality where the features come from; random weights are called so there (older records: empty).
    """

    name: str
    fingerprint: str
    interactions_fingerprint: str
    users: int
    items: int
    interactions: int
    modalities: dict[str, int]
    sources: dict[str, str] = {}


class CostPart(_Part):
    """What the run cost; rates are None where nothing was trained (floors)."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_device_bytes: int
    client_updates: int
    samples: int
    client_updates_per_s: float | None
    samples_per_s: float | None


class FilePart(_Part):
    """A file beside the JSON: its name (in the same folder) and the sha256 of its content."""

    name: str
    sha256: str


class RunRecord(_Part):
    """One run. Metrics are in percent and come from the ranks in `ranks`; `rounds` counts those that were run."""

    schema_version: Literal[1] = Field(description="of this form")
    key: str
    spec_hash: str
    dataset: str
    row: str
    seed: int
    protocol: str
    profile: str | None = Field(description="the profile that asked for the run first")
    created: str = Field(description="UTC, ISO 8601")
    spec: RunSpec
    execution: ExecutionConfig
    data: DataPart
    environment: Environment
    cost: CostPart
    rounds: int
    best_round: int
    valid: dict[str, float]
    test: dict[str, float]
    curve: tuple[RoundRecord, ...]
    ranks: FilePart
    outputs: FilePart | None
    chosen: dict[str, float] = Field({}, description="numbers that the run itself chose by validation")
    privacy: PrivacyGuarantee | None = Field(None, description="what the run's noise promises; None without noise")

    @model_validator(mode="after")
    def _is_consistent(self) -> RunRecord:
        if self.key != run_key(self.spec_hash, self.data.fingerprint):
            raise ValueError("the key does not follow from spec_hash and data.fingerprint")
        mine = (self.dataset, self.row, self.seed, self.protocol)
        if mine != (self.spec.dataset, self.spec.row, self.spec.seed, self.spec.protocol.name):
            raise ValueError("dataset, row, seed or protocol differ from those of spec")
        if (self.privacy is None) != (self.spec.conditions.privacy is None):
            raise ValueError("privacy does not fit the conditions of spec")
        return self


def run_key(spec_hash: str, data_fingerprint: str) -> str:
    """What makes a run the same run: its specification and the content of its data."""
    return f"{spec_hash}-{data_fingerprint[:12]}"


def make_record(
    result: RunResult,
    data: PreparedData,
    environment: Environment,
    ranks: FilePart,
    outputs: FilePart | None,
    profile: str | None,
) -> RunRecord:
    """The record of a finished run on `data`; raises `ResultsError` if the run was on other data."""
    spec, used = result.spec, result.resources
    if data.fingerprint != result.data_fingerprint:
        raise ResultsError(f"the run {spec.dataset} {spec.row} was not computed on the data given with it")
    training = sum(sum(s for name, s in r.seconds.items() if name != "evaluation") for r in result.curve)
    return RunRecord(
        schema_version=1,
        key=run_key(spec.spec_hash, result.data_fingerprint),
        spec_hash=spec.spec_hash,
        dataset=spec.dataset,
        row=spec.row,
        seed=spec.seed,
        protocol=spec.protocol.name,
        profile=profile,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        spec=spec,
        execution=result.execution,
        data=DataPart(
            name=result.data_name,
            fingerprint=result.data_fingerprint,
            interactions_fingerprint=result.interactions_fingerprint,
            users=data.interactions.n_users,
            items=data.interactions.n_items,
            interactions=data.interactions.n_interactions,
            modalities={name: modality.dim for name, modality in data.features.items()},
            sources={name: modality.source for name, modality in data.features.items()},
        ),
        environment=environment,
        cost=CostPart(
            wall_s=used.wall_s,
            cpu_s=used.cpu_s,
            peak_rss_bytes=used.peak_rss_bytes,
            peak_device_bytes=used.peak_device_bytes,
            client_updates=used.client_updates,
            samples=used.samples,
            client_updates_per_s=used.client_updates / training if training > 0 and used.client_updates else None,
            samples_per_s=used.samples / training if training > 0 and used.samples else None,
        ),
        rounds=len(result.curve),
        best_round=result.best_round,
        valid=summary(result.valid),
        test=summary(result.test),
        curve=result.curve,
        ranks=ranks,
        outputs=outputs,
        chosen=dict(result.chosen),
        privacy=guarantee_of(spec, data.interactions.n_users),
    )
