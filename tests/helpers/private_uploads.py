"""Uploads, cohorts and specifications for the suites of clipping and noise."""

import torch

from fedvlr_plugin.aggregation.rule import Cohort, Rule
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.config import RunSpec

N_ITEMS, USERS = 40, 20
SHAPE = UploadShape(
    {
        "views": torch.zeros(2, N_ITEMS, 3),
        "table.x": torch.zeros(N_ITEMS, 4),
        "layer.a.weight": torch.zeros(5, 2),
        "layer.a.bias": torch.zeros(5),
    }
)


def spec(rounds: int = 20, seed: int = 3, participation: float = 1.0, **privacy: object) -> RunSpec:
    training = {"rounds": rounds, "participation": participation}
    values = {"dataset": "ku", "row": "FCF", "seed": seed, "training": training, "conditions": {"privacy": privacy}}
    return RunSpec.model_validate(values)


def uploads(clients: int = USERS, scale: float = 1.0, seed: int = 0, dtype=torch.float32) -> ClientUploads:
    source = torch.Generator().manual_seed(seed)
    keys = torch.cat(
        [torch.randperm(N_ITEMS, generator=source)[:7].sort().values + u * N_ITEMS for u in range(clients)]
    )
    rows = scale * torch.randn(len(keys), SHAPE.row_width, generator=source, dtype=dtype)
    layers = scale * torch.randn(clients, SHAPE.layer_width, generator=source, dtype=dtype)
    return ClientUploads(SHAPE, torch.arange(clients), torch.arange(1, clients + 1), keys, rows, layers)


def cohort(clients: int = USERS, round: int = 1, weighting="equal", n_users: int = USERS) -> Cohort:
    return Cohort(round, torch.arange(clients), torch.arange(1, clients + 1), n_users, weighting)


def total(rule: Rule, blocks: list[ClientUploads], who: Cohort | None = None) -> dict[str, torch.Tensor] | None:
    rule.begin(who or cohort(), SHAPE, torch.float32, torch.device("cpu"))
    for block in blocks:
        rule.take(block)
    return rule.total()


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.reshape(-1).double() for value in tensors.values()])
