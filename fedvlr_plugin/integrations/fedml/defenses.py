"""What FedML's defences must be fed to do what their names say, and our own rules where they cannot.

    trimmed_mean      FedML sorts clients by sample count and cuts both ends. It is fed the round's order statistics:
                      entry k holds the k-th smallest value of each coordinate, with k as its sample count. So what
                      it cuts are each coordinate's extreme values (Yin et al., ICML 2018); the rest weighs the same.
    rfa, geo_median   FedML keeps weights in a set, where equal ones fall together. They are fed weights that differ in
                      the ninth digit, and whole batches of equal weight: every client or batch weighs the same.
                      What FedML computes then, tensor by tensor, is no geometric median: its iteration multiplies
                      each weight on every pass and ends at the one client, or batch, that is nearest to the middle.

`fedvlr_robust` runs a rule of `fedvlr_plugin.aggregation.robust` in place of FedML's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import ceil

import torch

from fedvlr_plugin.aggregation.robust import make_robust_rule
from fedvlr_plugin.aggregation.rule import Cohort, Rule
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.config import Robust, build_config
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml.messages import Message
from fedvlr_plugin.integrations.fedml.options import option, text, whole

Raw = list[tuple[float, Message]]


def defence_of(args: object) -> str:
    """The defence of FedML that is on, or nothing."""
    return text(args, "defense_type").strip() if option(args, "enable_defense") else ""


def own_rule(args: object) -> Rule | None:
    """The rule that `fedvlr_robust` names: a name, or a mapping with `rule` and its numbers."""
    wanted = option(args, "fedvlr_robust")
    if wanted is None:
        return None
    if not isinstance(wanted, str | Mapping):
        raise ConfigError(f"fedvlr_robust: a rule, or {{rule: trimmed_mean, trim: 0.2}}, is needed, got {wanted!r}")
    return make_robust_rule(build_config(Robust, {"rule": wanted} if isinstance(wanted, str) else dict(wanted)))


def order_statistics(raw: Raw) -> Raw:
    """As many entries as clients; entry k holds each coordinate's k-th smallest value and weighs k."""
    ordered = {name: torch.stack([upload[name] for _, upload in raw]).sort(0).values for name in raw[0][1]}
    return [
        (float(place + 1), OrderedDict((name, values[place]) for name, values in ordered.items()))
        for place in range(len(raw))
    ]


def distinct_weights(raw: Raw, batch: int) -> Raw:
    """Give weights that differ in the ninth digit; the last, shorter batch weighs what the others do."""
    short = len(raw) % batch
    whole_ones = len(raw) - short
    return [
        ((1.0 if place < whole_ones else batch / short) * (1.0 + place * 1e-9), upload)
        for place, (_, upload) in enumerate(raw)
    ]


def batch_size(args: object) -> int:
    """Clients per batch of FedML's geo_median; rfa takes each for itself."""
    if defence_of(args) != "geo_median":
        return 1
    batches = whole(args, "batch_num", 1) if whole(args, "byzantine_client_num", 0) else 1
    return ceil(whole(args, "client_num_per_round", 1) / batches)


def too_few_for_krum(args: object, clients: int) -> bool:
    """Whether FedML's Krum would refuse so many clients: 2 f + 2 <= n - m must hold."""
    if defence_of(args) not in ("krum", "multikrum"):
        return False
    return 2 * whole(args, "byzantine_client_num", 0) + 2 > clients - whole(args, "krum_param_m", 1)


def combined(rule: Rule, raw: Raw, shape: UploadShape, round: int) -> Message:
    """Our rule over dense uploads; rows that are all zero count as not touched."""
    flat = [shape.flatten(upload) for _, upload in raw]
    touched = torch.stack([rows.any(dim=1) for rows, _ in flat])
    sizes = torch.tensor([weight for weight, _ in raw], dtype=torch.float64)
    clients = torch.arange(len(raw))
    uploads = ClientUploads(
        shape,
        clients,
        sizes,
        touched.view(-1).nonzero()[:, 0],
        torch.cat([rows[hit] for (rows, _), hit in zip(flat, touched, strict=True)]),
        torch.stack([layers for _, layers in flat]),
    )
    rule.begin(Cohort(round, clients, sizes, len(raw), "samples"), shape, uploads.rows.dtype, torch.device("cpu"))
    rule.take(uploads)
    return OrderedDict(rule.total() or {})
