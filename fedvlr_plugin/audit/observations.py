"""Compute what an adversary observes, as item vectors `[n_items, R]` for `audit.inference`.

upload          a client's upload without any protection
noisy upload    the upload with N(0, s^2) on every entry: the paper's noise, which each client adds at home
masked upload   the words of secure aggregation under its real masks (`aggregation.secure`), read as signed numbers
sum             what the server learns under secure aggregation, or what is released under differential privacy
others known    the sum minus all other clients' parts: the client's clipped upload with the noise of the whole sum,
                N(0, (z C)^2) on every entry; the worst case that differential privacy covers

All random draws depend on the run's seed and on counters only.
"""

from __future__ import annotations

import numpy as np
import torch

from fedvlr_plugin.aggregation.rule import Cohort
from fedvlr_plugin.aggregation.secure import SecureSum, Words
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.config import Secure
from fedvlr_plugin.rng import Stream, generator

UPLOAD, NOISY, MASKED, SUM, OTHERS_KNOWN = "upload", "noisy upload", "masked upload", "sum", "sum, others known"
COINS, NOISE = 0, 1


def members(seed: int, audited: torch.Tensor) -> torch.Tensor:
    """Draw the clients whose uploads enter the sum.

    Args:
        seed: of the run.
        audited: `[U]` bool.

    Returns:
        `[U]` bool: half of the audited clients (rounded down), and all clients that are not audited.
    """
    chosen = torch.nonzero(audited)[:, 0]
    order = torch.randperm(len(chosen), generator=generator(seed, Stream.AUDIT, COINS))
    is_member = torch.ones(len(audited), dtype=torch.bool)
    is_member[chosen[order[: len(chosen) - len(chosen) // 2]]] = False
    return is_member


def draw_audited(seed: int, n_users: int, most: int) -> torch.Tensor:
    """Draw the clients to audit.

    Args:
        seed: of the run.
        n_users: U.
        most: how many clients are audited at most.

    Returns:
        `[U]` bool; all true if there are no more than `most` clients.
    """
    audited = torch.zeros(n_users, dtype=torch.bool)
    audited[torch.randperm(n_users, generator=generator(seed, Stream.AUDIT, COINS, 1))[:most]] = True
    return audited


def with_noise(rows: torch.Tensor, scale: float, seed: int, round: int, user: int) -> torch.Tensor:
    """Add N(0, scale^2) to every entry.

    Args:
        rows: item vectors `[n_items, R]`, float64.
        scale: standard deviation of the noise; each scale has draws of its own.
        seed: of the run.
        round: counted from 1.
        user: the client.
    """
    source = generator(seed, Stream.AUDIT, NOISE, round, user, int(scale * 1e9))
    return rows + scale * torch.randn(rows.shape, dtype=torch.float64, generator=source)


class _RecordingSecureSum(SecureSum):
    """Secure aggregation that keeps the masked words."""

    def begin_recording(self) -> None:
        self.recorded: list[Words] = []

    def seen(self, masked: Words, start: int) -> None:
        self.recorded.append(masked.copy())


def masked_rows(uploads: ClientUploads, seed: int, round: int) -> torch.Tensor:
    """Compute what the server receives from each client of a cohort under secure aggregation.

    Args:
        uploads: of the B clients that form the cohort.
        seed: of the run.
        round: counted from 1.

    Returns:
        Masked item vectors `[B, n_items, R]`, float64, in steps of the quantiser.
    """
    rule = _RecordingSecureSum(Secure(), seed)
    cohort = Cohort(round, uploads.clients, uploads.sizes, len(uploads.clients), "equal")
    rule.begin(cohort, uploads.shape, uploads.rows.dtype, uploads.rows.device)
    rule.begin_recording()
    rule.take(uploads)
    rule.total()
    words = np.concatenate(rule.recorded, axis=1).view(np.int32).astype(np.float64)
    shape = uploads.shape
    return torch.from_numpy(words)[:, : shape.n_items * shape.row_width].view(-1, shape.n_items, shape.row_width)
