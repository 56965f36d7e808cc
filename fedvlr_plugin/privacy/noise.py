"""The noise itself, the rule of the paper's noise, and what a checkpoint must agree on. Imports `federation`, `rng`."""

from __future__ import annotations

import math

import torch

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.aggregation import Cohort, Rule
from fedvlr_plugin.federation.uploads import ClientUploads, UploadShape
from fedvlr_plugin.rng import Stream, generator

INNER = "inner."
MECHANISMS = ("gaussian", "paper_noise")


def draw_noise(
    seed: int, round: int, shape: UploadShape, scale: float, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """N(0, scale^2) on every entry of the broadcast's tensors, the same whatever the device and the number type."""
    source = generator(seed, Stream.NOISE, round)
    rows = scale * torch.randn(shape.n_items, shape.row_width, dtype=torch.float64, generator=source)
    layers = scale * torch.randn(shape.layer_width, dtype=torch.float64, generator=source)
    return shape.unflatten(rows.to(device, dtype), layers.to(device, dtype))


def check_identity(mine: dict[str, float], state: dict[str, torch.Tensor]) -> None:
    """Raises `ConfigError` unless a state was written by the same mechanism with the same settings."""
    for name, value in mine.items():
        found = scalar(state, name) if name in state else None
        if found != value:
            what = f"{name} {value:g}"
            if name == "mechanism":
                what = f"the mechanism {MECHANISMS[int(value)]}"
            raise ConfigError(
                f"this checkpoint was written under another privacy mechanism (this run has {what}, the checkpoint "
                f"{'none' if found is None else f'{found:g}'}); what it spent cannot be carried over: resume with the "
                "settings it was started with, or start anew"
            )


def scalar(state: dict[str, torch.Tensor], name: str) -> float:
    """A number of a state."""
    return float(state[name].reshape(-1)[0])


class PaperNoiseRule:
    """Gaussian noise on every entry of each client's gradients before they are summed; promises nothing.

    The sum of the clients' noises, weighted by alpha_u, is one Gaussian of standard deviation
    s * sqrt(sum alpha_u^2), and is drawn as one: the server's sum has the same distribution, at the cost of one draw.
    """

    def __init__(self, scale: float, seed: int, inner: Rule) -> None:
        self.scale, self.seed, self.inner = scale, seed, inner

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.shape, self.dtype, self.device = cohort, shape, dtype, device
        self.squares = 0.0
        self.inner.begin(cohort, shape, dtype, device)

    def take(self, uploads: ClientUploads) -> None:
        self.squares += float(self.cohort.weights(uploads.sizes).square().sum())
        self.inner.take(uploads)

    def total(self) -> dict[str, torch.Tensor] | None:
        summed = self.inner.total()
        if summed is None:
            return None
        scale = self.scale * math.sqrt(self.squares)
        noise = draw_noise(self.seed, self.cohort.round, self.shape, scale, self.dtype, self.device)
        return {name: value + noise[name] for name, value in summed.items()}

    def counts(self) -> dict[str, float]:
        return self.inner.counts()

    def state(self) -> dict[str, torch.Tensor]:
        mine = {name: torch.tensor([value], dtype=torch.float64) for name, value in self._identity().items()}
        return mine | {INNER + name: value for name, value in self.inner.state().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        check_identity(self._identity(), state)
        self.inner.load_state({n.removeprefix(INNER): v for n, v in state.items() if n.startswith(INNER)})

    def _identity(self) -> dict[str, float]:
        return {
            "mechanism": float(MECHANISMS.index("paper_noise")),
            "noise_scale": self.scale,
            "seed": float(self.seed),
        }
