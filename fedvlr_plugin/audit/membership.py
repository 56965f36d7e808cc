"""Looks over the server's shoulder: a rule that passes uploads on to another one and keeps what an audit needs.

Of the audited clients only the *members* reach the inner rule and so the sum; the others train at home, and what they
would have sent is kept too. Whether a client is a member is what the membership tests have to find out (a game with one
fair coin per audited client, all thrown in one run: Steinke, Nasr & Jagielski, NeurIPS 2023).

For one round, with c_u the weighted (and, under differential privacy, clipped) upload of u and S the released sum,

    upload known      <c_u, S> / |c_u|^2              the test knows c_u, and takes the others for noise
    all others known  <c_u, [u in] c_u + N> / |c_u|^2       what is left of S when all others are taken away

are added up over rounds, numerator and denominator. The second is the likelihood ratio test against Gaussian noise, the
strongest there is; its expected value is 1 for members and 0 for others. The size of N is measured on the sum that was
really released; N itself is drawn anew for each client. With the noise of the run, which all clients share, a test that
knows all others would be run on clients side by side, each time knowing the bits it is asked for elsewhere: where uploads
resemble each other (FedNCF's layers do) that tells members at any epsilon.
What a promise allows any membership test: upper bounds on its AUC.

(epsilon, delta)-privacy bounds the power of every test at false positive rate x by (Kairouz, Oh & Viswanath, ICML 2015)

    f(x) = min(1, e^eps x + delta, 1 - e^-eps (1 - delta - x)),      AUC <= integral of f over [0, 1].

T rounds of a Gaussian mechanism that every client takes part in (q = 1) are one Gaussian of mu = sqrt(T) / z (Dong, Roth &
Su 2022), whose best test has AUC = Phi(mu / sqrt 2): smaller than the first bound, and reached where the upload has the
full length C.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import norm

from fedvlr_plugin.aggregation.clipping import clip
from fedvlr_plugin.aggregation.rule import Cohort, Rule
from fedvlr_plugin.aggregation.uploads import ClientUploads, RunningSum, UploadShape, join_uploads
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.rng import Stream, generator

GAME = 4


class RecordingRule:
    """See the module; a `federation.aggregation.Rule`.

    Args:
        inner: makes the released sum.
        seed: of the tests' noise.
        members, audited: `[U]` bool; who is not audited must be a member.
        bound: C where the inner rule clips and weighs by 1 / U; None where it sums with the backbone's weights.

    Attributes:
        uploads: audited clients' uploads of the last round, as the inner rule counts them (clipped), weight 1.
        released: the sum of the last round as item rows `[n_items, R]`.
        knows_one, knows_all, lengths: sums over rounds by user `[U]`: the numerators above, and |c_u|^2.
    """

    def __init__(
        self, inner: Rule, members: torch.Tensor, audited: torch.Tensor, bound: float | None, seed: int = 0
    ) -> None:
        self.seed = seed
        self.inner, self.members, self.audited, self.bound = inner, members, audited, bound
        n_users = len(members)
        self.knows_one = torch.zeros(n_users, dtype=torch.float64)
        self.knows_all = torch.zeros(n_users, dtype=torch.float64)
        self.lengths = torch.zeros(n_users, dtype=torch.float64)
        self.clipped = self.taken = 0

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.shape = cohort, shape
        self.parts: list[ClientUploads] = []
        self.sum = RunningSum(shape, torch.float64, device)
        self.inner.begin(cohort, shape, dtype, device)

    def take(self, uploads: ClientUploads) -> None:
        inside = self.members[uploads.clients]
        if bool(inside.any()):
            self.inner.take(uploads.only(inside))
        counted = uploads
        if self.bound is not None:
            done = clip(uploads, self.bound)
            counted = done.uploads
            self.clipped += done.over
        self.taken += len(counted.clients)
        weights = self._weights(counted)
        here = self.members[counted.clients]
        if bool(here.any()):
            part = counted.only(here)
            self.sum.add(_double(part), weights[here])
        kept = self.audited[counted.clients]
        if bool(kept.any()):
            self.parts.append(counted.only(kept))

    def total(self) -> dict[str, torch.Tensor] | None:
        summed = self.inner.total()
        if summed is None or not self.parts:
            return summed
        self.uploads = join_uploads(self.parts)
        self.parts = []
        rows, layers = (part.double() for part in self.shape.flatten(summed))
        self.released = rows
        self._test(rows, layers)
        return summed

    def _test(self, rows: torch.Tensor, layers: torch.Tensor) -> None:
        """Add a round to both tests."""
        uploads = _double(self.uploads)
        weights, users = self._weights(uploads), uploads.clients
        lengths = weights.square() * uploads.norms().square()
        noise = torch.cat([(rows - self.sum.rows).view(-1), layers - self.sum.layers]).square().mean().sqrt()
        draws = torch.randn(
            len(self.members),
            dtype=torch.float64,
            generator=generator(self.seed, Stream.AUDIT, GAME, self.cohort.round),
        )
        self.knows_one[users] += weights * _dots(uploads, rows, layers)
        self.knows_all[users] += self.members[users] * lengths + noise * lengths.sqrt() * draws[users]
        self.lengths[users] += lengths

    def _weights(self, uploads: ClientUploads) -> torch.Tensor:
        if self.bound is not None:
            return torch.full((len(uploads.clients),), 1.0 / self.cohort.n_users, dtype=torch.float64)
        return self.cohort.weights(uploads.sizes).double()

    def dense(self, position: int) -> torch.Tensor:
        """The item rows `[n_items, R]` of one audited client's last upload, float64."""
        here = self.uploads.owner == position
        rows = torch.zeros(self.shape.n_items, self.shape.row_width, dtype=torch.float64)
        return rows.index_copy(0, self.uploads.items[here], self.uploads.rows[here].double())

    def counts(self) -> dict[str, float]:
        return self.inner.counts()

    def state(self) -> dict[str, torch.Tensor]:
        return self.inner.state()

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.inner.load_state(state)


def _double(uploads: ClientUploads) -> ClientUploads:
    return ClientUploads(
        uploads.shape, uploads.clients, uploads.sizes, uploads.keys, uploads.rows.double(), uploads.layers.double()
    )


def _dots(uploads: ClientUploads, rows: torch.Tensor, layers: torch.Tensor) -> torch.Tensor:
    """<upload_u, (rows, layers)> of each client, `[B]`."""
    found = uploads.layers @ layers
    return found.index_add(0, uploads.owner, (uploads.rows * rows[uploads.items]).sum(1))


def auc_bound(epsilon: float, delta: float) -> float:
    """The largest AUC that (epsilon, delta) allows; 1 for an infinite epsilon."""
    if epsilon < 0 or not 0 <= delta < 1:
        raise ConfigError(f"epsilon must be at least 0 and delta in [0, 1), got {epsilon:g} and {delta:g}")
    if epsilon > 700:
        return 1.0
    grows = math.exp(epsilon)
    cross = (1.0 - delta) / (grows + 1.0)  # where the two slanted lines meet
    height = grows * cross + delta
    rising = 0.5 * (delta + height) * cross
    levelling = 0.5 * (height + 1.0) * (1.0 - delta - cross)
    return rising + levelling + delta


def gaussian_auc(noise_multiplier: float, rounds: int) -> float:
    """The AUC of the best test against T rounds of the Gaussian mechanism at q = 1; 1 without noise."""
    if noise_multiplier == 0:
        return 1.0
    return float(norm.cdf(math.sqrt(rounds) / noise_multiplier / math.sqrt(2.0)))
