"""Secure aggregation (Bonawitz et al., CCS 2017), simulated: the server adds up masked uploads and learns the sum.

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2**32,   s_uv = H(g^(a_u a_v))

x_u is the upload, clamped to `bound`, times alpha_u, rounded to steps of bound * sum alpha / (2**31 - 1 - n), so
that the sum of n of them cannot overflow. Clients share a_u and b_u by Shamir's scheme. For a client lost before sending
a_u is recovered, so that the others' masks against it can be removed; for every client that has sent b_u is recovered,
those lost after sending included, from the shares of the clients that answer. With fewer answers than `threshold` of the
cohort the round is given up. The masks are really made and removed with recovered secrets, but keys have toy size and all
secrets come from the run's seed: this simulates the protocol and does not protect a deployment.

Each client masks its whole dense upload: U^2 / 2 masks of its size, made in pieces of `PIECE` numbers.

Shamir's secret sharing over the prime field of 2**127 - 1, written plainly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fedvlr_plugin.aggregation.rule import Cohort
from fedvlr_plugin.aggregation.uploads import ClientUploads, UploadShape, join_uploads
from fedvlr_plugin.config import Secure
from fedvlr_plugin.rng import Stream, chance, client_keys, derive

Words = npt.NDArray[np.uint32]
GENERATOR = 3
PIECE = 1 << 15  # a multiple of 8, so that a piece begins at a whole block of the generator
LOST_BEFORE, LOST_AFTER, KEY, SELF = range(4)


def expand(secret: int, start: int, length: int) -> Words:
    """Generate the numbers `start` to `start + length` of the mask of a secret, uint32; `start` is a multiple of 8."""
    bits = np.random.Philox(key=secret, counter=start // 8)
    return bits.random_raw((length + 1) // 2).view(np.uint32)[:length]


def agree(secret: int, public: int) -> int:
    """Derive the key of a pair from one client's secret and the other's public value."""
    common = pow(public, secret, PRIME)
    return int.from_bytes(hashlib.sha256(common.to_bytes(16, "big")).digest()[:16], "big")


class SecureSum:
    """The secure sum as a rule; implements `aggregation.rule.Rule`.

    Args:
        wanted: the settings.
        seed: of the secrets and of the draw of lost clients.
        losses_of: the round whose lost clients are lost here, too; None: the cohort's own round. An upload that is summed
            in several pieces takes fresh masks for each piece (a round number of its own) and loses the same clients.
    """

    def __init__(self, wanted: Secure, seed: int, losses_of: int | None = None) -> None:
        self.wanted, self.seed, self.losses_of = wanted, seed, losses_of

    def _lost(self, stage: int, clients: torch.Tensor, share: float) -> torch.Tensor:
        """Draw which clients are lost at a stage, bool of their shape."""
        round = self.cohort.round if self.losses_of is None else self.losses_of
        return chance(client_keys(self.seed, Stream.MASK, round, stage, clients), share)

    def begin(self, cohort: Cohort, shape: UploadShape, dtype: torch.dtype, device: torch.device) -> None:
        self.cohort, self.shape, self.dtype, self.device = cohort, shape, dtype, device
        n = len(cohort.clients)
        self.mass = max(float(cohort.weights(cohort.sizes).sum()), 1e-300)
        self.step = self.wanted.bound * self.mass / (2**31 - 1 - n)
        self.need = max(1, math.ceil(self.wanted.threshold * n - 1e-9))
        self.users: list[int] = cohort.clients.tolist()
        self.parts: list[ClientUploads] = []
        self.accounts = {"lost_before": 0.0, "lost_after": 0.0, "clamped": 0.0, "given_up": 0.0}

    def take(self, uploads: ClientUploads) -> None:
        there = ~self._lost(LOST_BEFORE, uploads.clients, self.wanted.lost_before)
        self.accounts["lost_before"] += float((~there).sum())
        self.parts.append(uploads.only(there))

    def quantised(self, uploads: ClientUploads) -> tuple[torch.Tensor, torch.Tensor]:
        """Round rows and layers to int64 multiples of `step`; count what was clamped."""
        alpha, bound = self.cohort.weights(uploads.sizes).double(), self.wanted.bound
        out = []
        for values, factor in ((uploads.rows, alpha[uploads.owner]), (uploads.layers, alpha)):
            self.accounts["clamped"] += float((values.abs() > bound).sum())
            out.append((values.double().clamp(-bound, bound) * factor[:, None] / self.step).round().long())
        return out[0], out[1]

    def total(self) -> dict[str, torch.Tensor] | None:
        parts = [part for part in self.parts if len(part.clients)]
        self.parts = []
        if not parts:
            return None
        uploads = join_uploads(parts)
        lost = self._lost(LOST_AFTER, uploads.clients, self.wanted.lost_after)
        self.accounts["lost_after"] = float(lost.sum())
        answering = uploads.clients[~lost].sort().values.tolist()
        if len(answering) < self.need:
            self.accounts["given_up"] = 1.0
            return None
        summed = torch.from_numpy(self._unmask(uploads, answering).view(np.int32).astype(np.float64) * self.step)
        cut = self.shape.n_items * self.shape.row_width
        rows, layers = summed.to(self.device, self.dtype).split([cut, self.shape.layer_width])
        return self.shape.unflatten(rows.view(self.shape.n_items, -1), layers)

    def _unmask(self, uploads: ClientUploads, answering: list[int]) -> Words:
        """Add up masked uploads, and remove the masks with secrets recovered from the clients that answer."""
        sent, rows, layers = uploads.clients.tolist(), *self.quantised(uploads)
        gone = sorted(set(self.users) - set(sent))
        public = {u: pow(GENERATOR, self.secret(KEY, u), PRIME) for u in self.users}
        holders = answering[: self.need]
        lagrange = weights(holders)
        selves = {u: self._recover(SELF, u, holders, lagrange) for u in sent}
        recovered = {u: self._recover(KEY, u, holders, lagrange) for u in gone}
        pairs = {(u, v): agree(self.secret(KEY, u), public[v]) for u in sent for v in self.users if u < v or v in gone}
        dangling = {(u, v): agree(recovered[v], public[u]) for u in sent for v in gone}
        size, width = self.shape.size, self.shape.row_width
        dense = torch.zeros(len(sent), size, dtype=torch.int32)
        for place in range(len(sent)):
            here = uploads.owner == place
            table = torch.zeros(self.shape.n_items, width, dtype=torch.int32)
            table[uploads.items[here].cpu()] = rows[here].cpu().int()
            dense[place] = torch.cat([table.view(-1), layers[place].cpu().int()])
        plain: Words = dense.numpy().view(np.uint32)
        place_of = {u: i for i, u in enumerate(sent)}
        out = np.zeros(size, dtype=np.uint32)
        for start in range(0, size, PIECE):
            view = plain[:, start : start + PIECE].copy()
            length = view.shape[1]
            for u in sent:
                view[place_of[u]] += expand(self.secret(SELF, u), start, length)
            for (u, v), key in pairs.items():
                mask = expand(key, start, length)
                sign_and_add(view[place_of[u]], mask, u < v)
                if v in place_of:
                    sign_and_add(view[place_of[v]], mask, v < u)
            self.seen(view, start)
            piece = view.sum(0, dtype=np.uint32)
            for u in sent:
                piece -= expand(selves[u], start, length)
            for (u, v), key in dangling.items():
                sign_and_add(piece, expand(key, start, length), v < u)
            out[start : start + length] = piece
        return out

    def seen(self, masked: Words, start: int) -> None:
        """Receive the masked uploads `[clients, piece]` as the server sees them; a hook for tests and the audit."""

    def secret(self, kind: int, user: int) -> int:
        """Draw a_u (KEY) or b_u (SELF) of a user, below the prime."""
        return self._draw(kind, user, 0)

    def _draw(self, kind: int, user: int, index: int) -> int:
        halves = [derive(self.seed, Stream.MASK, self.cohort.round, kind, user, 2 * index + i) for i in (0, 1)]
        return (halves[0] << 64 | halves[1]) % PRIME

    def _recover(self, kind: int, user: int, holders: list[int], lagrange: list[int]) -> int:
        coefficients = [self._draw(kind, user, k) for k in range(self.need)]
        return sum(w * share(coefficients, holder) for w, holder in zip(lagrange, holders, strict=True)) % PRIME

    def counts(self) -> dict[str, float]:
        """Return the numbers of clients lost and entries clamped, and whether the round was given up."""
        return dict(self.accounts)

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        return None


def sign_and_add(target: Words, mask: Words, plus: bool) -> None:
    """Add a mask to `target`, or subtract it, in place and mod 2**32."""
    if plus:
        target += mask
    else:
        target -= mask


PRIME = (1 << 127) - 1


def share(coefficients: Sequence[int], holder: int) -> int:
    """Evaluate the polynomial sum_k c_k x^k at x = holder + 1.

    Args:
        coefficients: c_0 is the secret; there are as many as shares are needed.
        holder: user id of the client that receives the share.
    """
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * (holder + 1) + coefficient) % PRIME
    return value


def weights(holders: Sequence[int]) -> list[int]:
    """Compute Lagrange's weights at 0 for the shares of these holders."""
    out = []
    for holder in holders:
        top = bottom = 1
        for other in holders:
            if other != holder:
                top = top * (other + 1) % PRIME
                bottom = bottom * (other - holder) % PRIME
        out.append(top * pow(bottom, -1, PRIME) % PRIME)
    return out


def recover(shares: Mapping[int, int]) -> int:
    """Recover a secret from shares by holder; fewer than the threshold give a number that reveals nothing."""
    holders = list(shares)
    return sum(w * shares[h] for w, h in zip(weights(holders), holders, strict=True)) % PRIME
