"""The specification of a run: all settings that determine its results, typed and validated.

A `RunSpec` is frozen and has a hash of its content (`spec_hash`); for unknown keys the nearest name is suggested.
Execution settings (`ExecutionConfig`) do not change results beyond floating-point rounding, so they are not part of the
hash.

Conditions (privacy, secure and robust aggregation, attacks, faults) are off by default. Those that are set are part of
the hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedvlr_plugin.errors import ConfigError, did_you_mean

__all__ = [
    "PROTOCOLS",
    "Attack",
    "Conditions",
    "ExecutionConfig",
    "Faults",
    "Frozen",
    "ModelConfig",
    "Privacy",
    "Protocol",
    "Robust",
    "RunSpec",
    "Secure",
    "TrainingConfig",
    "build_config",
]

ParamValue = str | int | float | bool | None | tuple[float, ...]


class Frozen(BaseModel):
    """Base of all settings: frozen, validated, unknown keys refused with the nearest name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: object) -> object:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    known = list(cls.model_fields)
                    raise ValueError(f"unknown key '{key}'.{did_you_mean(str(key), known)} Known: {', '.join(known)}")
        return values


FrozenT = TypeVar("FrozenT", bound=BaseModel)


def build_config(model: type[FrozenT], values: dict[str, object]) -> FrozenT:
    """Create settings from values.

    Args:
        model: class of the settings.
        values: by field name.

    Raises:
        ConfigError: values are wrong; the message lists all of them.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(model, error)) from None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for issue in error.errors():
        where = ".".join(str(p) for p in issue["loc"])
        message = issue["msg"].removeprefix("Value error, ")
        got = "" if issue["type"] in {"missing", "value_error"} else f" (got {issue['input']!r})"
        parts.append(f"{where}: {message}{got}" if where else message)
    return f"{model.__name__}: " + "; ".join(parts)


class Privacy(Frozen):
    """Noise on what the server sums.

    `gaussian`: user-level differential privacy. Each client's whole upload is clipped to `clip` (L2), and noise of
    standard deviation `noise_multiplier * clip` goes on the sum, on every entry. Give `epsilon` instead and the
    multiplier is calibrated to the run's rounds and participation.
    `paper_noise`: Gaussian noise of standard deviation `noise_scale` on each client's gradients, no clipping, as in
    Table 4 of the paper. It promises nothing (epsilon is infinite).
    """

    mechanism: Literal["gaussian", "paper_noise"] = "gaussian"
    clip: float = Field(1.0, gt=0.0, description="C, bound of a client's upload")
    noise_multiplier: float | None = Field(None, ge=0.0, description="z")
    epsilon: float | None = Field(None, gt=0.0)
    delta: float | None = Field(None, gt=0.0, lt=1.0, description="None = below 1 / users")
    adaptive_quantile: float | None = Field(None, gt=0.0, lt=1.0, description="quantile that C follows; None = fixed C")
    noise_scale: float | None = Field(None, gt=0.0, description="of paper_noise")

    @model_validator(mode="after")
    def _one_of(self) -> Privacy:
        if self.mechanism == "paper_noise":
            if self.noise_scale is None or self.epsilon is not None or self.noise_multiplier is not None:
                raise ValueError("paper_noise takes noise_scale, and neither epsilon nor noise_multiplier")
        elif (self.epsilon is None) == (self.noise_multiplier is None) or self.noise_scale is not None:
            raise ValueError("gaussian takes exactly one of epsilon and noise_multiplier, and no noise_scale")
        return self


class Secure(Frozen):
    """Secure aggregation, simulated: the server learns the sum of quantised uploads and nothing of one client."""

    bound: float = Field(1.0, gt=0.0, description="largest size of an entry; larger ones are clamped and counted")
    threshold: float = Field(2 / 3, gt=0.5, le=1.0, description="share of the cohort that must answer in the end")
    lost_before: float = Field(0.0, ge=0.0, lt=1.0, description="clients lost before they send a masked upload")
    lost_after: float = Field(0.0, ge=0.0, lt=1.0, description="clients lost after they have sent it")


class Robust(Frozen):
    """How uploads are combined instead of a weighted sum, against clients that lie.

    The rule is a name of the registry `aggregation.robust.RULES`, which installed packages add to; it is looked up when a
    run is built.
    """

    rule: str = Field(min_length=1, description="name of the rule, e.g. median or krum")
    clip: float | None = Field(None, gt=0.0, description="of norm_clip; None = the cohort's median norm")
    trim: float = Field(0.1, ge=0.0, lt=0.5, description="share cut off at each end by trimmed_mean")
    malicious: float = Field(0.2, ge=0.0, lt=0.5, description="share of liars that krum expects")
    params: dict[str, ParamValue] | None = Field(None, description="settings of a rule from another package")

    @field_validator("rule")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        """Ignore capitalisation, so that a rule has one hash."""
        return value.strip().casefold()


class Attack(Frozen):
    """Clients that lie: a fixed, drawn share of them changes what it uploads."""

    kind: Literal["sign_flip", "scaling", "promotion"]
    share: float = Field(0.1, ge=0.0, le=1.0)
    scale: float = Field(10.0, gt=0.0)
    item: int | None = Field(None, ge=0, description="0-based item to promote; None = the least popular one")


class Faults(Frozen):
    """Clients that fail, drawn anew each round.

    `dropout`: share that never starts. `stragglers`: share that trains at home but answers too late to be counted.
    """

    dropout: float = Field(0.0, ge=0.0, le=1.0)
    stragglers: float = Field(0.0, ge=0.0, le=1.0)


class Conditions(Frozen):
    """All conditions; None = off."""

    privacy: Privacy | None = None
    secure: Secure | None = None
    robust: Robust | None = None
    attack: Attack | None = None
    faults: Faults | None = None

    @property
    def per_client(self) -> bool:
        """Whether the server's step needs each client's upload separately."""
        return any(part is not None for part in (self.privacy, self.secure, self.robust, self.attack))

    @model_validator(mode="after")
    def _fit_together(self) -> Conditions:
        if self.robust is not None and (self.secure is not None or self.privacy is not None):
            raise ValueError(
                "robust rules look at single uploads, which secure aggregation hides and privacy bounds already; "
                "use one of robust, or secure and privacy"
            )
        return self


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
        """Learning rate of the router: `router_lr`, or by default a tenth of `client_lr`."""
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
        """Split a comma-separated text, e.g. `sum,mlp` from the command line."""
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
    control: Literal["none", "shuffled"] = Field("none", description="shuffled: item features permuted between items")

    @property
    def spec_hash(self) -> str:
        """sha256 (first 16 hex digits) of the whole specification as canonical JSON.

        Conditions that are not set and `control: none` are left out, so that runs without them keep their earlier hash.
        """
        content = self.model_dump(mode="json", exclude={"conditions", "control"})
        if self.control != "none":
            content["control"] = self.control
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
