"""The specification of one run: everything that defines a number, typed and validated.

A `RunSpec` is frozen and hashable by content (`spec_hash`); unknown keys are refused with the nearest
name. Execution settings (`ExecutionConfig`) say how a run is carried out and do not change what it
computes beyond floating-point rounding, so they are not part of the hash. Imports `frozen` and `conditions`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field, field_validator

from fedvlr_plugin.conditions import Conditions
from fedvlr_plugin.frozen import Frozen, build_config

__all__ = ["PROTOCOLS", "ExecutionConfig", "ModelConfig", "Protocol", "RunSpec", "TrainingConfig", "build_config"]

ParamValue = str | int | float | bool | None | tuple[float, ...]


class Protocol(Frozen):
    """How negatives are drawn and how models are evaluated (algorithm.md sections 6 and 8)."""

    name: Literal["corrected", "as_released"] = "corrected"
    negatives: int = Field(4, ge=1, le=1000, description="sampled negatives per positive and local epoch")
    negative_pool: Literal["all_items", "train_items"] = "all_items"
    mask_validation_at_test: bool = True
    keep_private_state: bool = True


PROTOCOLS = {
    "corrected": Protocol(),
    "as_released": Protocol(
        name="as_released",
        negatives=1,
        negative_pool="train_items",
        mask_validation_at_test=False,
        keep_private_state=False,
    ),
}


class TrainingConfig(Frozen):
    """Rounds, optimisers and learning rates (algorithm.md section 2)."""

    rounds: int = Field(100, ge=1, description="communication rounds at most")
    local_epochs: int = Field(5, ge=1, description="A, local epochs per round")
    batch_size: int = Field(2048, ge=1, description="samples per local step at most")
    participation: float = Field(1.0, gt=0.0, le=1.0, description="q, share of clients in a cohort")
    client_optimizer: Literal["adam", "sgd"] = "adam"
    server_optimizer: Literal["adam", "sgd"] = "adam"
    client_lr: float = Field(0.01, gt=0.0, description="rate of the head and the other private parameters")
    router_lr: float | None = Field(None, gt=0.0, description="rate of the router; None = a tenth of client_lr")
    server_lr: float = Field(0.003, gt=0.0, description="rate of the fusion and other shared weights")
    server_lr_id: float = Field(0.03, gt=0.0, description="rate of the ID tables")
    eval_every: int = Field(1, ge=1, description="validate every this many rounds")
    patience: int | None = Field(20, ge=1, description="stop after this many validations without gain; None = never")

    @property
    def effective_router_lr(self) -> float:
        """The router's rate with the default filled in."""
        return self.router_lr if self.router_lr is not None else 0.1 * self.client_lr


class ModelConfig(Frozen):
    """Widths, views and modalities (algorithm.md sections 3-5)."""

    dim: int = Field(64, ge=4, le=4096, description="d, latent width")
    views: tuple[str, ...] = Field(("sum", "mlp", "gate"), min_length=1, description="fusion operators of +ours")
    router_hidden: int = Field(64, ge=1)
    modalities: tuple[str, ...] | None = Field(None, description="content modalities; None = all of the data set")
    id_embedding: bool = Field(True, description="whether D takes part in the fusion")
    params: dict[str, ParamValue] = Field(default_factory=dict, description="the row's own parameters")

    @field_validator("views", "modalities", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """`sum,mlp` on a command line is the list of the two."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class RunSpec(Frozen):
    """One run: a row of the table on one data set with one seed."""

    dataset: str
    row: str
    seed: int = Field(0, ge=0)
    protocol: Protocol = Protocol()
    training: TrainingConfig = TrainingConfig()
    model: ModelConfig = ModelConfig()
    dtype: Literal["float32", "float64"] = "float32"
    conditions: Conditions = Conditions()

    @property
    def spec_hash(self) -> str:
        """sha256 (first 16 hex digits) of the whole specification as canonical JSON.

        Conditions that are not set are left out, so that runs without any keep the hash they always had.
        """
        content = self.model_dump(mode="json", exclude={"conditions"})
        conditions = self.conditions.model_dump(mode="json", exclude_none=True)
        if conditions:
            content["conditions"] = conditions
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ExecutionConfig(Frozen):
    """How a run is carried out; does not change its result beyond rounding."""

    engine: Literal["batched", "sequential"] = "batched"
    device: str = "cpu"
    block_clients: int | None = Field(None, ge=1, description="clients per block; None = chosen by size")
    memory_budget: int = Field(4 * 1024**3, ge=1, description="bytes of memory for private item rows")
    checkpoint_every: int | None = Field(None, ge=1, description="rounds between checkpoints; None = none")
    keep: tuple[Literal["router_weights"], ...] = Field((), description="private results to store, asked for by name")
