"""What a study tries: dimensions by row, the paper's grid from them, and how a point becomes settings.

The paper's grid is the learning rates 10^-4 ... 10^-1 for client and server and the method's own parameters. One
server rate stands for both of ours: it sets the ID tables' rate, and the fusion's at a tenth of it where there is a
fusion (algorithm.md section 2: one rate for both costs validation NDCG). A centralized row has one rate, RecBole's
`learning_rate`, and the parameter that its authors search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.declarations import Dimension
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import Row, declared, parse_row

RATES = (1e-4, 1e-3, 1e-2, 1e-1)

CLIENT = Dimension("client_lr", RATES, (("client_lr", 1.0),))
SERVER_ID = Dimension("server_lr", RATES, (("server_lr_id", 1.0), ("server_lr", 1.0)))
SERVER_FUSED = Dimension("server_lr", RATES, (("server_lr_id", 1.0), ("server_lr", 0.1)))
RECBOLE = Dimension("learning_rate", RATES, (("params.learning_rate", 1.0),))


def space_of(row_name: str) -> tuple[Dimension, ...]:
    """The dimensions of a row; raises `ConfigError` for a floor, which has nothing to choose."""
    row: Row = parse_row(row_name)
    if row.kind in ("floor", "closed_form", "one_shot"):
        raise ConfigError(
            f"'{row.name}' is a closed form: it chooses its own numbers by validation and is not searched"
        )
    if row.kind == "recbole":
        return (RECBOLE, *declared(row).search)
    return (CLIENT, SERVER_ID if row.fusion in ("none", "vbpr") else SERVER_FUSED, *declared(row).search)


def grid(space: Sequence[Dimension]) -> list[dict[str, float]]:
    """All points of the grid, the last dimension running fastest."""
    return [
        dict(zip([d.name for d in space], point, strict=True)) for point in product(*(d.values for d in space))
    ]  # fmt: skip


def point_of(space: Sequence[Dimension], spec: RunSpec) -> dict[str, float]:
    """The point at which a specification stands, moved into the space where it lies outside.

    The first setting of a dimension speaks for it; a parameter that the specification leaves to its default has
    the middle value of the grid.
    """
    point = {}
    for dimension in space:
        name, factor = dimension.sets[0]
        found = spec.model.params.get(name[7:]) if name.startswith("params.") else getattr(spec.training, name)
        value = found / factor if isinstance(found, (int, float)) else dimension.values[len(dimension.values) // 2]
        point[dimension.name] = min(max(float(value), min(dimension.values)), max(dimension.values))
    return point


def settings_of(space: Sequence[Dimension], point: Mapping[str, float]) -> dict[str, object]:
    """The settings a point stands for, as `profiles.spec_for` takes them."""
    settings: dict[str, object] = {}
    params: dict[str, float] = {}
    for dimension in space:
        for name, factor in dimension.sets:
            value = float(f"{point[dimension.name] * factor:.6g}")  # 0.1 * 0.1 should be 0.01, in hashes too
            if name.startswith("params."):
                params[name.removeprefix("params.")] = value
            else:
                settings[name] = value
    return settings | {"params": params} if params else settings
