"""Noise on what the server sums, as rules (`aggregation.rule.Rule`).

    gaussian      every upload clipped to C; sum of uploads + N(0, (z C)^2) on every entry; all of it / (q U)
    paper_noise   N(0, s^2) on each client's gradients, no clipping, the backbone's weights (Table 4 of the paper)

Under `gaussian` all clients weigh the same, in place of weights that follow their history, and the denominator is
fixed: both are needed for one client's influence to be bounded. The noise covers rows that nobody touched too, or
the support of the sum would tell what the cohort interacted with. `gaussian` composes with secure aggregation: clip,
add up in secret, noise on the sum.

The noise is drawn by counter from the run's seed, so that a resumed round is the same round. That is right for a
simulation and wrong for a deployment, where everyone who knows the seed can subtract the noise: draw it there from a
secret source. Two runs with one seed share their noise: to publish both, use two seeds and add their epsilons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fedvlr_plugin.aggregation.clipping import adaptive_settings, clip, next_bound
from fedvlr_plugin.aggregation.rule import Cohort, Rule, WeightedSum
from fedvlr_plugin.aggregation.uploads import ClientUploads, RunningSum, UploadShape
from fedvlr_plugin.config import Privacy, RunSpec
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.privacy.accounting import Accountant
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, guarantee_of
from fedvlr_plugin.rng import Stream, generator


@dataclass(frozen=True)
class FixedDenominator(Cohort):
    """A cohort whose clients all weigh 1 / denominator, however many were drawn.

    Attributes:
        denominator: q U, the expected number of clients.
    """

    denominator: float = 1.0

    def weights(self, sizes: torch.Tensor) -> torch.Tensor:
        return torch.full_like(sizes, 1.0 / self.denominator, dtype=torch.float64)


class GaussianRule:
    """User-level differential privacy by the Gaussian mechanism.

    Args:
        wanted: the settings.
        promised: the guarantee that they give, the noise multiplier z with it.
        seed: of the noise.
        n_users: U, number of all clients.
        inner: the rule that adds up the clipped uploads.

    Raises:
        ConfigError: the guarantee has no noise multiplier.
    """

    def __init__(self, wanted: Privacy, promised: PrivacyGuarantee, seed: int, n_users: int, inner: Rule) -> None:
        if promised.noise_multiplier is None:
            raise ConfigError("the gaussian mechanism needs a noise multiplier, got none")
        self.seed, self.inner, self.promised = seed, inner, promised
        self.z = self.z_sum = promised.noise_multiplier
        self.expected = promised.sampling * n_users
        self.n_users, self.bound, self.rounds = n_users, wanted.clip, 0
        self.quantile = None
        if wanted.adaptive_quantile is not None:
            self.quantile, self.z_sum = adaptive_settings(wanted.adaptive_quantile, self.z, self.expected)
        self.start = wanted.clip
        self.accountant: Accountant | None = None
        if self.z > 0 and promised.delta is not None:
            self.accountant = Accountant(self.z, promised.sampling, promised.delta, promised.rounds)

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.round, self.shape, self.dtype, self.device = cohort.round, shape, dtype, device
        self.within = self.over = self.refused = 0
        self.used = self.bound
        fixed = FixedDenominator(cohort.round, cohort.clients, cohort.sizes, cohort.n_users, "equal", self.expected)
        self.inner.begin(fixed, shape, dtype, device)

    def take(self, uploads: ClientUploads) -> None:
        done = clip(uploads, self.used)
        self.within, self.over, self.refused = (
            self.within + done.within,
            self.over + done.over,
            self.refused + done.refused,
        )
        self.inner.take(done.uploads)

    def total(self) -> dict[str, torch.Tensor] | None:
        """Return the noisy sum, noise alone where nobody was drawn; None only where the secure sum was given up."""
        self.rounds += 1
        taken = self.within + self.over
        summed = self.inner.total() if taken else RunningSum(self.shape, self.dtype, self.device).tensors()
        if self.quantile is not None:
            source = generator(self.seed, Stream.CLIP_COUNT, self.round)
            self.bound = next_bound(self.used, self.quantile, self.within, self.over, self.expected, source)
        if summed is None or self.z == 0.0:
            return summed
        scale = self.z_sum * self.used / self.expected
        noise = draw_noise(self.seed, self.round, self.shape, scale, self.dtype, self.device)
        return {name: value + noise[name] for name, value in summed.items()}

    def counts(self) -> dict[str, float]:
        """Return the share of clipped uploads, the bound C, and epsilon so far (left out while it is infinite)."""
        taken = self.within + self.over
        accounts = {"clipped": self.over / max(taken, 1), "clip": self.used} | self.inner.counts()
        if self.refused:
            accounts["not_finite"] = float(self.refused)
        if self.accountant is not None:
            accounts["epsilon"] = self.accountant.epsilon(self.rounds)
        return accounts

    def state(self) -> dict[str, torch.Tensor]:
        """Return the accountant's history: the mechanism, the number of rounds, and the present bound."""
        values = {**self._identity(), "rounds": float(self.rounds), "bound": self.bound}
        own = {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}
        return own | {INNER + name: value for name, value in self.inner.state().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        check_identity(self._identity(), state)
        self.rounds, self.bound = int(scalar(state, "rounds")), scalar(state, "bound")
        self.inner.load_state({n.removeprefix(INNER): v for n, v in state.items() if n.startswith(INNER)})

    def _identity(self) -> dict[str, float]:
        return {
            "mechanism": float(MECHANISMS.index("gaussian")),
            "noise_multiplier": self.z,
            "sampling": self.promised.sampling,
            "users": float(self.n_users),
            "clip": self.start,
            "quantile": -1.0 if self.quantile is None else self.quantile.target,
            "seed": float(self.seed),
        }


def make_private_rule(spec: RunSpec, n_users: int) -> Rule:
    """Build the rule of a run with noise.

    Args:
        spec: the run.
        n_users: U, number of all clients.

    Raises:
        ConfigError: the run has no privacy, or its epsilon cannot be reached.
        MissingExtraError: dp-accounting is not installed.
    """
    wanted, secure = spec.conditions.privacy, spec.conditions.secure
    promised = guarantee_of(spec, n_users)
    if wanted is None or promised is None:
        raise ConfigError(f"the run {spec.dataset} {spec.row} asks for no privacy, so there is no rule for it")
    inner: Rule = WeightedSum()
    if secure is not None:
        from fedvlr_plugin.aggregation.secure import SecureSum

        inner = SecureSum(secure, spec.seed)
    if wanted.noise_scale is not None:
        return PaperNoiseRule(wanted.noise_scale, spec.seed, inner)
    return GaussianRule(wanted, promised, spec.seed, n_users, inner)


INNER = "inner."
MECHANISMS = ("gaussian", "paper_noise")


def draw_noise(
    seed: int, round: int, shape: UploadShape, scale: float, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """Draw N(0, scale^2) for every entry of the broadcast's tensors, the same on every device and in every dtype.

    Args:
        seed: of the run.
        round: counted from 1.
        shape: names and sizes of the broadcast.
        scale: standard deviation, at least 0.
        dtype: of the result.
        device: of the result.
    """
    source = generator(seed, Stream.NOISE, round)
    rows = scale * torch.randn(shape.n_items, shape.row_width, dtype=torch.float64, generator=source)
    layers = scale * torch.randn(shape.layer_width, dtype=torch.float64, generator=source)
    return shape.unflatten(rows.to(device, dtype), layers.to(device, dtype))


def check_identity(identity: dict[str, float], state: dict[str, torch.Tensor]) -> None:
    """Raise `ConfigError` unless a state was written by the same mechanism with the same settings."""
    for name, value in identity.items():
        stored = scalar(state, name) if name in state else None
        if stored != value:
            what = f"{name} {value:g}"
            if name == "mechanism":
                what = f"the mechanism {MECHANISMS[int(value)]}"
            raise ConfigError(
                f"this checkpoint was written under another privacy mechanism (this run has {what}, the checkpoint "
                f"{'none' if stored is None else f'{stored:g}'}); what it spent cannot be carried over: resume with the "
                "settings it was started with, or start anew"
            )


def scalar(state: dict[str, torch.Tensor], name: str) -> float:
    """Read a number of a state."""
    return float(state[name].reshape(-1)[0])


class PaperNoiseRule:
    """Gaussian noise on every entry of each client's gradients before they are summed; it guarantees nothing (epsilon is infinite).

    The sum of the clients' noises, weighted by alpha_u, is one Gaussian of standard deviation
    s * sqrt(sum alpha_u^2), and is drawn as one: the server's sum has the same distribution, at the cost of one draw.

    Args:
        scale: s, standard deviation of the noise on a client's gradients, above 0.
        seed: of the noise.
        inner: the rule that adds up the uploads.
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
        own = {name: torch.tensor([value], dtype=torch.float64) for name, value in self._identity().items()}
        return own | {INNER + name: value for name, value in self.inner.state().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        check_identity(self._identity(), state)
        self.inner.load_state({n.removeprefix(INNER): v for n, v in state.items() if n.startswith(INNER)})

    def _identity(self) -> dict[str, float]:
        return {
            "mechanism": float(MECHANISMS.index("paper_noise")),
            "noise_scale": self.scale,
            "seed": float(self.seed),
        }
