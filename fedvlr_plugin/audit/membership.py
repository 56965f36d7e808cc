"""Test whether a client's upload is in the released sum, and bound the AUC of any such test.

`RecordingRule` wraps an aggregation rule. Of the audited clients, only the *members* reach the inner rule and so the
sum; the others train too, and their uploads are recorded but not summed. A membership test decides which clients are
members. One run holds one fair coin per audited client (Steinke, Nasr & Jagielski, NeurIPS 2023).

For one round, with c_u the weighted (and, under differential privacy, clipped) upload of u and S the released sum,

    upload known      <c_u, S> / |c_u|^2                the test knows c_u and treats the other uploads as noise
    all others known  <c_u, [u in] c_u + N> / |c_u|^2   the test also knows all other uploads and subtracts them from S

are the two test statistics; numerators and denominators are summed over rounds. The second is the likelihood ratio test
against Gaussian noise N, the most powerful test; its expected value is 1 for members and 0 for others.

The scale of N is measured on the released sum, and N is drawn independently for each client. The noise of the run itself
would be shared by all clients: each test would then know the membership of all other audited clients, and where uploads
are similar (the layers of FedNCF) it would identify members at any epsilon.

Bounds. (epsilon, delta)-privacy bounds the power of every test at false positive rate x by (Kairouz, Oh & Viswanath,
ICML 2015)

    f(x) = min(1, e^eps x + delta, 1 - e^-eps (1 - delta - x)),      AUC <= integral of f over [0, 1].

T rounds of a Gaussian mechanism in which every client takes part (q = 1) equal one Gaussian mechanism of
mu = sqrt(T) / z (Dong, Roth & Su 2022). Its best test has AUC = Phi(mu / sqrt 2), which is below the first bound and is
reached if the upload has the full length C.
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
    """An `aggregation.rule.Rule` that passes the members' uploads to another rule and records the audited ones.

    Args:
        inner: the rule that computes the released sum.
        members: `[U]` bool, clients whose uploads are summed.
        audited: `[U]` bool; every client that is not audited must be a member.
        bound: the clipping norm C, if the inner rule clips and weights each client by 1 / U; None if it sums with the
            backbone's weights.
        seed: of the noise in the tests.

    Attributes:
        uploads: uploads of the audited clients in the last round, clipped as the inner rule does, not weighted.
        released: the item part of the last round's sum, `[n_items, R]`, float64.
        knows_one: numerators of the first test by client, summed over rounds, `[U]`.
        knows_all: numerators of the second test, `[U]`.
        lengths: denominators of both, |c_u|^2, `[U]`.
        clipped: number of uploads cut to C so far.
        taken: number of uploads so far.
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
            clipping = clip(uploads, self.bound)
            counted = clipping.uploads
            self.clipped += clipping.over
        self.taken += len(counted.clients)
        weights = self._weights(counted)
        summed = self.members[counted.clients]  # clipping leaves out uploads that are not finite
        if bool(summed.any()):
            self.sum.add(_double(counted.only(summed)), weights[summed])
        audited = self.audited[counted.clients]
        if bool(audited.any()):
            self.parts.append(counted.only(audited))

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
        """Add one round to both tests, from the released sum: item part `[n_items, R]` and layers `[P]`, float64."""
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
        """Return the item part of one audited client's last upload.

        Args:
            position: of the client in `uploads.clients`.

        Returns:
            `[n_items, R]`, float64, zero for items that the client did not train on.
        """
        entries = self.uploads.owner == position
        rows = torch.zeros(self.shape.n_items, self.shape.row_width, dtype=torch.float64)
        return rows.index_copy(0, self.uploads.items[entries], self.uploads.rows[entries].double())

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
    """Compute the inner product <upload_u, (rows, layers)> of each client, `[B]`."""
    products = uploads.layers @ layers
    return products.index_add(0, uploads.owner, (uploads.rows * rows[uploads.items]).sum(1))


def auc_bound(epsilon: float, delta: float) -> float:
    """Compute the largest AUC of a membership test under (epsilon, delta)-privacy.

    Args:
        epsilon: at least 0; infinity gives 1.
        delta: in [0, 1).

    Raises:
        ConfigError: a value out of range.
    """
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
    """Compute the AUC of the best membership test against a Gaussian mechanism with every client in every round.

    Args:
        noise_multiplier: z, at least 0; 0 (no noise) gives 1.
        rounds: T.
    """
    if noise_multiplier == 0:
        return 1.0
    return float(norm.cdf(math.sqrt(rounds) / noise_multiplier / math.sqrt(2.0)))
