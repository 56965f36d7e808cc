"""Robust aggregation as a rule of the federation: what liars upload must not decide the sum.

    norm_clip     g_u * min(1, C / |g_u|), C = `clip` or the median norm of the round; then the weighted sum
    median        per coordinate over the clients that touched the row (see `coordinate`)
    trimmed_mean  the same without the smallest and the largest share `trim`
    krum          the one upload with the nearest neighbours (see `krum`)
    multi_krum    the weighted mean of all but the share `malicious` that lies furthest out
    geometric_median    the point with the least sum of distances to all uploads (see `geometric`)

With equal uploads each gives what the plain weighted sum gives. A round's uploads are held until it ends, as touched
rows. Imports `coordinate`, `geometric`, `krum`, `conditions`, `federation`.
"""

from __future__ import annotations

import torch

from fedvlr_plugin.config import Robust
from fedvlr_plugin.federation.aggregation import Cohort
from fedvlr_plugin.federation.uploads import ClientUploads, RunningSum, UploadShape, join_uploads
from fedvlr_plugin.robust import coordinate, geometric, krum


class RobustRule:
    """See the module; implements `federation.aggregation.Rule`."""

    def __init__(self, wanted: Robust) -> None:
        self.wanted = wanted

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.shape, self.dtype, self.device = cohort, shape, dtype, device
        self.parts: list[ClientUploads] = []
        self.accounts: dict[str, float] = {}

    def take(self, uploads: ClientUploads) -> None:
        self.parts.append(uploads)

    def total(self) -> dict[str, torch.Tensor] | None:
        parts = [part for part in self.parts if len(part.clients)]
        self.parts = []
        if not parts:
            return None
        uploads = join_uploads(parts)
        weights = self.cohort.weights(uploads.sizes)
        rule = self.wanted.rule
        if rule == "median":
            return coordinate.combine(uploads, weights, coordinate.median)
        if rule == "trimmed_mean":
            return coordinate.combine(uploads, weights, coordinate.trimmed_mean(self.wanted.trim))
        if rule == "norm_clip":
            weights = weights * self._clipping(uploads.norms())
        elif rule == "geometric_median":
            weights = geometric.combine(uploads, weights)
        else:
            weights = krum.combine(uploads, weights, self.wanted.malicious, several=rule == "multi_krum")
            self.accounts["taken"] = float((weights > 0).sum())
        summed = RunningSum(self.shape, self.dtype, self.device)
        summed.add(uploads, weights)
        return summed.tensors()

    def _clipping(self, norms: torch.Tensor) -> torch.Tensor:
        bound = self.wanted.clip
        if bound is None:
            bound = float(norms.quantile(0.5))
        self.accounts |= {"clip": bound, "clipped": float((norms > bound).double().mean())}
        return torch.where(norms > bound, bound / norms, 1.0)

    def counts(self) -> dict[str, float]:
        """`clip` and the share `clipped` (norm_clip), or how many clients were `taken` (Krum)."""
        return dict(self.accounts)

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        return None
