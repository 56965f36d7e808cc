"""The base of all settings: frozen, unknown keys refused with the nearest name. Imports only `errors`."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fedvlr_plugin.errors import ConfigError, did_you_mean


class Frozen(BaseModel):
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
    """Validates `values` into `model`; raises `ConfigError` with one line per complaint."""
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
