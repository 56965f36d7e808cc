"""Robust aggregation: rules under which clients that lie cannot decide the sum.

    norm_clip     g_u * min(1, C / |g_u|), C = `clip` or the median norm of the round; then the weighted sum
    median        per coordinate over the clients that touched the row (see `coordinate_wise`)
    trimmed_mean  the same without the smallest and the largest share `trim`
    krum          the one upload with the nearest neighbours (see `krum_weights`)
    multi_krum    the weighted mean of all but the share `malicious` that lies furthest out
    geometric_median    the point with the least sum of distances to all uploads (see `geometric_median_weights`)

With equal uploads each gives what the plain weighted sum gives.

Coordinate-wise rules over sparse uploads: median (Yin et al., ICML 2018) and trimmed mean.

An item row is touched by few clients and is zero in all other uploads, so a median over all clients would be zero
nearly everywhere and nothing would be learned. So each item row is decided by the k clients that touched it, and
weighs what they weigh together:

    sum_row = (sum_{u in touched} alpha_u) * robust_mean_{u in touched}(g_u)

Where all of them upload the same row this is the weighted sum. Votes count the same whatever a client says its
n_u is, or a liar would only have to claim many samples. The price of the choice: on a row that more liars than
honest clients touched, the liars decide. Layers are touched by all.

The geometric median of uploads (Pillutla et al., IEEE TSP 2022): the point with the least sum of distances to all.

    z = argmin_z sum_u |g_u - z|

Found by Weiszfeld's iteration, beta_u = (1 / |g_u - z|) / sum_v (1 / |g_v - z|), z = sum_u beta_u g_u. Since z stays
a weighted mean of the uploads, only the pairwise squared distances D of `squared_distances` are needed and the betas are iterated:

    |g_u - z|^2 = (D beta)_u - beta^T D beta / 2

Where the least sum lies at an upload itself (many equal ones), the iteration would crawl; that is decided first, by
the size of the sum of unit vectors that pull away from it. Votes count the same whatever a client says its n_u is;
what comes out stands for the whole cohort, sum = (sum_u alpha_u) z. Less than half of the clients cannot move z
further than honest uploads are apart.

Krum and Multi-Krum (Blanchard et al., NeurIPS 2017): trust the uploads with the nearest neighbours.

A client's score is the sum of its n - f - 2 smallest squared distances to the others, f = floor(malicious * n). Krum
takes the client of the lowest score, Multi-Krum the n - f lowest. What is taken stands for the whole cohort:

    sum = (sum_u alpha_u) * (sum_{u taken} alpha_u g_u) / (sum_{u taken} alpha_u)

The guarantee needs n > 2 f + 2. Distances come from the Gram matrix, added up over chunks of items in float64.
A recommender's honest uploads touch different items and lie far apart, so Krum's one client is a poor stand-in for
all: the accuracy that it costs is part of what the attack bench shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch

from fedvlr_plugin.aggregation.rule import Cohort, Rule
from fedvlr_plugin.aggregation.uploads import ClientUploads, RunningSum, UploadShape, join_uploads
from fedvlr_plugin.config import Robust
from fedvlr_plugin.errors import ConfigError, did_you_mean
from fedvlr_plugin.registry import Registry

RuleFactory = Callable[[Robust], Rule]
RULES: Registry[RuleFactory] = Registry("aggregation rule", "fedvlr_plugin.rules")


def make_robust_rule(settings: Robust) -> Rule:
    """Build the rule that a run's conditions name.

    Args:
        settings: the rule's name and numbers.

    Returns:
        A rule for one run; it keeps nothing between rounds unless its `state` says so.

    Raises:
        UnknownNameError: no rule has the name; the message has the nearest one.
        ConfigError: the rule does not take these settings, or its package cannot be loaded.
    """
    return RULES.get(settings.rule)(settings)


class RobustRule(ABC):
    """Base of rules that look at all uploads of a round together; implements `aggregation.rule.Rule`.

    A subclass gives `combine` and is registered with `RULES.register(name)`, or by an entry point of the group
    `fedvlr_plugin.rules`. Uploads of a round are held in memory until it ends.

    Class attributes:
        takes: names of the settings in `Robust.params` that the rule knows.

    Args:
        settings: the numbers of the rule.

    Raises:
        ConfigError: `Robust.params` has a setting that the rule does not know.
    """

    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Robust) -> None:
        self.settings = settings
        for name in settings.params or {}:
            if name not in self.takes:
                known = sorted(self.takes)
                raise ConfigError(
                    f"aggregation rule '{settings.rule}': unknown setting '{name}'.{did_you_mean(name, known)} "
                    f"Known: {', '.join(known) or 'none'}"
                )

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        """Start a round: forget what was held."""
        self.cohort, self.shape, self.dtype, self.device = cohort, shape, dtype, device
        self.held: list[ClientUploads] = []
        self.accounts: dict[str, float] = {}

    def take(self, uploads: ClientUploads) -> None:
        """Hold a block of uploads until the round ends."""
        self.held.append(uploads)

    def total(self) -> dict[str, torch.Tensor] | None:
        """Combine what was held; None when nobody has sent anything."""
        blocks = [block for block in self.held if len(block.clients)]
        self.held = []
        if not blocks:
            return None
        uploads = join_uploads(blocks)
        return self.combine(uploads, self.cohort.weights(uploads.sizes))

    @abstractmethod
    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one sum of a round's uploads.

        Args:
            uploads: the uploads of B clients, B at least 1, each finite.
            weights: alpha_u `[B]` in float64, as the plain weighted sum has them.

        Returns:
            Tensors by name, in the shapes of the broadcast. With equal uploads: what the weighted sum gives.
        """

    def weighted_sum(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add up the uploads with the given weights `[B]`."""
        summed = RunningSum(self.shape, self.dtype, self.device)
        summed.add(uploads, weights)
        return summed.tensors()

    def counts(self) -> dict[str, float]:
        """Return the accounts of the round, e.g. the share `clipped` or the number `taken`."""
        return dict(self.accounts)

    def state(self) -> dict[str, torch.Tensor]:
        """Return nothing: these rules keep nothing between rounds."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Accept the empty state."""
        return None


@RULES.register("norm_clip")
class NormClip(RobustRule):
    """Weighted sum of g_u * min(1, C / |g_u|), C = `clip` or the median norm of the round.

    Accounts: the bound `clip` and the share `clipped`.
    """

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        norms = uploads.norms()
        bound = self.settings.clip
        if bound is None:
            bound = float(norms.quantile(0.5))
        self.accounts |= {"clip": bound, "clipped": float((norms > bound).double().mean())}
        return self.weighted_sum(uploads, weights * torch.where(norms > bound, bound / norms, 1.0))


@RULES.register("median")
class CoordinateMedian(RobustRule):
    """Median of each coordinate over the clients that touched its item (Yin et al., ICML 2018)."""

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        return coordinate_wise(uploads, weights, median)


@RULES.register("trimmed_mean")
class TrimmedMean(RobustRule):
    """Mean of each coordinate without the smallest and largest share `trim` (Yin et al., ICML 2018)."""

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        return coordinate_wise(uploads, weights, trimmed_mean(self.settings.trim))


@RULES.register("krum")
class Krum(RobustRule):
    """The one upload with the nearest neighbours (Blanchard et al., NeurIPS 2017). Account: clients `taken`."""

    several: ClassVar[bool] = False

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = krum_weights(uploads, weights, self.settings.malicious, self.several)
        self.accounts["taken"] = float((weights > 0).sum())
        return self.weighted_sum(uploads, weights)


@RULES.register("multi_krum")
class MultiKrum(Krum):
    """The weighted mean of all but the share `malicious` that lies furthest out (Blanchard et al., NeurIPS 2017)."""

    several: ClassVar[bool] = True


@RULES.register("geometric_median")
class GeometricMedian(RobustRule):
    """The point with the least sum of distances to all uploads (Pillutla et al., IEEE TSP 2022)."""

    def combine(self, uploads: ClientUploads, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.weighted_sum(uploads, geometric_median_weights(uploads, weights))


COORDINATE_CHUNK = 1 << 22
Middle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""values `[k_max, m, w]` sorted over the first axis, padded with inf, and counts `[m]` -> `[m, w]`."""


def median(ordered: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The middle value, the mean of the two middle ones where the count is even."""
    low, high = (counts - 1) // 2, counts // 2
    at = [i.view(1, -1, 1).expand(1, -1, ordered.shape[2]) for i in (low, high)]
    return (ordered.gather(0, at[0])[0] + ordered.gather(0, at[1])[0]) / 2


def trimmed_mean(share: float) -> Middle:
    """The mean without the floor(share * k) smallest and as many largest values; at least one is left."""

    def middle(ordered: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        cut = (counts * share + 1e-9).long()
        rank = torch.arange(len(ordered), device=ordered.device)[:, None]
        kept = (rank >= cut) & (rank < counts - cut)
        return torch.where(kept[:, :, None], ordered, 0.0).sum(0) / (counts - 2 * cut)[:, None]

    return middle


def coordinate_wise(uploads: ClientUploads, weights: torch.Tensor, middle: Middle) -> dict[str, torch.Tensor]:
    """The rule over all clients, weights alpha_u `[B]`; shapes of the broadcast."""
    shape, rows = uploads.shape, uploads.rows
    items, order = uploads.items.sort(stable=True)
    counts = torch.bincount(items, minlength=shape.n_items)
    first = torch.cumsum(counts, 0) - counts
    mass = rows.new_zeros(shape.n_items, dtype=torch.float64)
    mass.index_add_(0, uploads.items, weights[uploads.owner].double())
    out = rows.new_zeros(shape.n_items, shape.row_width)
    chosen = torch.argsort(counts, descending=True, stable=True)  # chunks of items with like counts waste no padding
    chosen = chosen[: int((counts > 0).sum())]
    while len(chosen):
        deepest = int(counts[chosen[0]])
        part = chosen[: max(1, COORDINATE_CHUNK // (deepest * shape.row_width))]
        chosen = chosen[len(part) :]
        rank = torch.arange(deepest, device=rows.device)[:, None]
        there = rank < counts[part]
        place = torch.where(there, first[part] + rank, 0)
        values = torch.where(there[:, :, None], rows[order[place]], torch.inf)
        out[part] = middle(values.sort(0).values, counts[part]) * mass[part, None].to(rows.dtype)
    return shape.unflatten(out, _layers(uploads, weights, middle))


def _layers(uploads: ClientUploads, weights: torch.Tensor, middle: Middle) -> torch.Tensor:
    n_clients, width = uploads.layers.shape
    step = max(1, COORDINATE_CHUNK // n_clients)
    parts = [uploads.layers[:, :0].sum(0)]
    count = torch.tensor([n_clients], device=uploads.layers.device)
    for start in range(0, width, step):
        ordered = uploads.layers[:, start : start + step].sort(0).values
        parts.append(middle(ordered[:, None, :], count)[0])
    return torch.cat(parts) * float(weights.double().sum())


STEPS = 10_000
STILL = 1e-13
SAME = 1e-12


def geometric_median_weights(uploads: ClientUploads, weights: torch.Tensor) -> torch.Tensor:
    """Weights `[B]` in float64 that make the geometric median a weighted sum: beta_u * sum of `weights`."""
    squares = uploads.norms().square()
    distances = squared_distances(uploads)
    distances[distances <= SAME * (squares[:, None] + squares[None])] = 0.0
    return median_weights(distances) * weights.double().sum()


def median_weights(distances: torch.Tensor) -> torch.Tensor:
    """beta `[B]`, at least 0, of sum 1, from squared distances `[B, B]` in float64."""
    n_points = len(distances)
    lengths = distances.sqrt()
    best = int(lengths.sum(1).argmin())
    if _is_least(distances, lengths[best], best):
        return torch.zeros(n_points, dtype=distances.dtype, device=distances.device).index_fill(
            0, torch.tensor([best], device=distances.device), 1.0
        )
    beta = distances.new_full((n_points,), 1.0 / n_points)
    for _ in range(STEPS):
        across = distances @ beta
        to_middle = (across - (beta @ across) / 2).clamp(min=0.0).sqrt()
        pull = 1.0 / to_middle.clamp(min=torch.finfo(distances.dtype).tiny ** 0.5)
        following = pull / pull.sum()
        moved = float((following - beta).abs().max())
        beta = following
        if moved < STILL:
            break
    return beta


def _is_least(distances: torch.Tensor, lengths: torch.Tensor, point: int) -> bool:
    """Whether the sum of distances is least at an upload: the others' unit pulls are no longer than its own count."""
    apart = lengths > 0
    pulls = torch.where(apart, 1.0 / lengths.clamp(min=torch.finfo(lengths.dtype).tiny), 0.0)
    inner = (distances[point][:, None] + distances[point][None] - distances) / 2
    return bool(pulls @ inner @ pulls <= (~apart).sum().double().square())


KRUM_CHUNK = 1 << 23


def squared_distances(uploads: ClientUploads) -> torch.Tensor:
    """`[B, B]` float64, between whole uploads."""
    shape, n_clients = uploads.shape, len(uploads.clients)
    layers = uploads.layers.double()
    gram = layers @ layers.t()
    items, order = uploads.items.sort(stable=True)
    step = max(1, KRUM_CHUNK // (n_clients * shape.row_width))
    for start in range(0, shape.n_items, step):
        bounds = torch.searchsorted(items, torch.tensor([start, start + step], device=items.device)).tolist()
        here = order[bounds[0] : bounds[1]]
        if len(here):
            dense = gram.new_zeros(n_clients, step, shape.row_width)
            dense[uploads.owner[here], uploads.items[here] - start] = uploads.rows[here].double()
            flat = dense.view(n_clients, -1)
            gram += flat @ flat.t()
    squares = gram.diagonal()
    return (squares[:, None] + squares[None] - 2 * gram).clamp(min=0.0)


def chosen(uploads: ClientUploads, malicious: float, several: bool) -> torch.Tensor:
    """Which clients are taken, bool `[B]`; equal scores go to the lower user id."""
    n_clients = len(uploads.clients)
    liars = int(malicious * n_clients + 1e-9)
    taken = torch.zeros(n_clients, dtype=torch.bool, device=uploads.rows.device)
    distances = squared_distances(uploads).fill_diagonal_(torch.inf)
    near = min(max(n_clients - liars - 2, 1), n_clients - 1)
    scores = distances.sort(1).values[:, :near].sum(1)
    by_id = torch.argsort(uploads.clients)
    best = by_id[torch.argsort(scores[by_id], stable=True)]
    taken[best[: n_clients - liars if several else 1]] = True
    return taken


def krum_weights(uploads: ClientUploads, weights: torch.Tensor, malicious: float, several: bool) -> torch.Tensor:
    """Weights `[B]` in float64 that make the rule a weighted sum: zero for whom it does not take."""
    weights = weights.double()
    kept = torch.where(chosen(uploads, malicious, several), weights, 0.0)
    return kept * (weights.sum() / kept.sum().clamp(min=torch.finfo(torch.float64).tiny))
