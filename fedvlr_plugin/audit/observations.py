"""What an adversary gets to see, as item rows `[n_items, R]` for the probes. Draws come from the run's seed by counter.

upload          a client's upload, as it is without any protection
noisy upload    the same with N(0, s^2) on every entry: the paper's noise, which each client adds at home
masked upload   the words of secure aggregation, read as signed numbers (`secure.aggregation`, its real masks)
sum             what the server learns under secure aggregation, or what is released under differential privacy
others known    sum less all other clients' parts: the client's clipped upload with the noise of the whole sum,
                N(0, (z C)^2) on every entry; the worst case that differential privacy is promised for
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
    """Who takes part, `[U]` bool: half of the audited clients (rounded down), drawn; everyone who is not audited."""
    chosen = torch.nonzero(audited)[:, 0]
    order = torch.randperm(len(chosen), generator=generator(seed, Stream.AUDIT, COINS))
    found = torch.ones(len(audited), dtype=torch.bool)
    found[chosen[order[: len(chosen) - len(chosen) // 2]]] = False
    return found


def draw_audited(seed: int, n_users: int, most: int) -> torch.Tensor:
    """Who is audited, `[U]` bool: everyone, or as many as `most`, drawn."""
    found = torch.zeros(n_users, dtype=torch.bool)
    found[torch.randperm(n_users, generator=generator(seed, Stream.AUDIT, COINS, 1))[:most]] = True
    return found


def with_noise(rows: torch.Tensor, scale: float, seed: int, round: int, user: int) -> torch.Tensor:
    """Rows with N(0, scale^2) on every entry, of this client in this round; another scale is another draw."""
    source = generator(seed, Stream.AUDIT, NOISE, round, user, int(scale * 1e9))
    return rows + scale * torch.randn(rows.shape, dtype=torch.float64, generator=source)


class _Overheard(SecureSum):
    """Secure aggregation whose masked words are kept."""

    def begin_listening(self) -> None:
        self.heard: list[Words] = []

    def seen(self, masked: Words, start: int) -> None:
        self.heard.append(masked.copy())


def masked_rows(uploads: ClientUploads, seed: int, round: int) -> torch.Tensor:
    """What the server receives of each client of a cohort of just these, `[B, n_items, R]`, in steps of the quantiser."""
    rule = _Overheard(Secure(), seed)
    cohort = Cohort(round, uploads.clients, uploads.sizes, len(uploads.clients), "equal")
    rule.begin(cohort, uploads.shape, uploads.rows.dtype, uploads.rows.device)
    rule.begin_listening()
    rule.take(uploads)
    rule.total()
    words = np.concatenate(rule.heard, axis=1).view(np.int32).astype(np.float64)
    shape = uploads.shape
    return torch.from_numpy(words)[:, : shape.n_items * shape.row_width].view(-1, shape.n_items, shape.row_width)
