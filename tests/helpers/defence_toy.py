"""Synthetic uploads for the suites of robust rules, secure aggregation and the audit."""

import torch
from helpers.toy import make_toy

from fedvlr_plugin.aggregation.rule import Cohort
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.federation.simulation import Federation

SHAPE = UploadShape(
    {
        "views": torch.zeros(2, 7, 3),
        "table.a": torch.zeros(7, 2),
        "layer.t.weight": torch.zeros(2, 3),
        "layer.t.bias": torch.zeros(2),
    }
)


def make_uploads(n_clients=6, seed=0, touched=0.5, shape=SHAPE, same=False, first=0):
    """Random uploads of the clients first, first + 1, ..., each touching a share of the items."""
    source = torch.Generator().manual_seed(seed)
    hit = torch.rand(n_clients, shape.n_items, generator=source) < touched
    keys = torch.nonzero(hit.view(-1))[:, 0]
    row = torch.randn(1 if same else n_clients, shape.n_items, shape.row_width, generator=source, dtype=torch.float64)
    layers = torch.randn(1 if same else n_clients, shape.layer_width, generator=source, dtype=torch.float64)
    rows = row.expand(n_clients, -1, -1).reshape(-1, shape.row_width)[keys]
    clients = torch.arange(first, first + n_clients)
    sizes = torch.randint(1, 9, (n_clients,), generator=source)
    return ClientUploads(shape, clients, sizes, keys, rows, layers.expand(n_clients, -1).clone())


def cohort_of(uploads, weighting="samples", round=1, n_users=50):
    return Cohort(round, uploads.clients, uploads.sizes, n_users, weighting)


def run_rule(rule, uploads, weighting="samples", round=1, parts=1):
    """begin, take (in so many parts), total."""
    rule.begin(cohort_of(uploads, weighting, round), uploads.shape, uploads.rows.dtype, torch.device("cpu"))
    n = len(uploads.clients)
    for part in range(parts):
        kept = torch.arange(n) % parts == part
        if kept.any():
            rule.take(uploads.only(kept))
    return rule.total()


def flat(tensors, shape=SHAPE):
    rows, layers = shape.flatten(tensors)
    return torch.cat([rows.reshape(-1), layers])


def dense(uploads):
    """All uploads as vectors `[B, size]`, one after the other."""
    return torch.stack([flat(uploads.dense(i), uploads.shape) for i in range(len(uploads.clients))])


def build_under(make_spec, conditions, backbone, fusion, engine="batched", data=None, block=None, **changes):
    """A federation of the toy with conditions."""
    spec = make_spec(backbone, **changes).model_copy(update={"conditions": conditions})
    return Federation(
        spec, backbone, fusion, data or make_toy(), ExecutionConfig(engine=engine, block_clients=block)
    )  # fmt: skip
