"""Prepare uploads so that FedML's defences do what their names say, and run this package's robust rules.

    trimmed_mean      FedML sorts clients by sample count and cuts both ends. It gets order statistics instead:
                      entry k holds the k-th smallest value of each coordinate, with k as its sample count. So it cuts
                      the extreme values of each coordinate (Yin et al., ICML 2018); the others have equal weights.
    rfa, geo_median   FedML keeps weights in a set, which merges equal ones. They get weights that differ in the ninth
                      digit, and batches of equal total weight, so that every client or batch counts the same. The
                      result, tensor by tensor, is not a geometric median: FedML's iteration multiplies each weight in
                      every pass and converges to the one client, or batch, that is nearest to the centre.

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
    """Return the name of FedML's active defence; empty if there is none."""
    return text(args, "defense_type").strip() if option(args, "enable_defense") else ""


def own_rule(args: object) -> Rule | None:
    """Create the rule of the option `fedvlr_robust`: a name, or a mapping with `rule` and its settings.

    Returns:
        The rule; None if the option is not set.

    Raises:
        ConfigError: the option is neither, or a setting is wrong.
    """
    choice = option(args, "fedvlr_robust")
    if choice is None:
        return None
    if not isinstance(choice, str | Mapping):
        raise ConfigError(f"fedvlr_robust: a rule, or {{rule: trimmed_mean, trim: 0.2}}, is needed, got {choice!r}")
    return make_robust_rule(build_config(Robust, {"rule": choice} if isinstance(choice, str) else dict(choice)))


def order_statistics(raw: Raw) -> Raw:
    """Compute order statistics: entry k holds the k-th smallest value of each coordinate and has weight k, from 1."""
    ordered = {name: torch.stack([upload[name] for _, upload in raw]).sort(0).values for name in raw[0][1]}
    return [
        (float(position + 1), OrderedDict((name, values[position]) for name, values in ordered.items()))
        for position in range(len(raw))
    ]


def distinct_weights(raw: Raw, batch: int) -> Raw:
    """Replace weights by ones that differ in the ninth digit; a shorter last batch of `batch` has the same total weight."""
    short = len(raw) % batch
    whole_ones = len(raw) - short
    return [
        ((1.0 if position < whole_ones else batch / short) * (1.0 + position * 1e-9), upload)
        for position, (_, upload) in enumerate(raw)
    ]


def batch_size(args: object) -> int:
    """Return the number of clients in a batch of FedML's geo_median; 1 for other defences."""
    if defence_of(args) != "geo_median":
        return 1
    batches = whole(args, "batch_num", 1) if whole(args, "byzantine_client_num", 0) else 1
    return ceil(whole(args, "client_num_per_round", 1) / batches)


def too_few_for_krum(args: object, clients: int) -> bool:
    """Return whether there are too few clients for FedML's Krum: 2 f + 2 <= n - m must hold for n clients."""
    if defence_of(args) not in ("krum", "multikrum"):
        return False
    return 2 * whole(args, "byzantine_client_num", 0) + 2 > clients - whole(args, "krum_param_m", 1)


def combined(rule: Rule, raw: Raw, shape: UploadShape, round: int) -> Message:
    """Combine dense uploads by a robust rule; an item whose vector is zero counts as not trained on.

    Args:
        rule: the rule.
        raw: weights and dense uploads.
        shape: of the uploads.
        round: counted from 1.
    """
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
