"""Malicious clients, to measure defences: a fixed share of all users, drawn once per seed, changes what it uploads.

    sign_flip   uploads -scale * g: the model is pushed away from what the liar's data say
    scaling     uploads scale * g: an honest direction that drowns the others
    promotion   uploads g, but the target item's row is  -scale * max_i |g_i| * q / |q|

q stands for Q_u, the vector that the liar's scores are linear in: nearly every row of an upload is a multiple of it,
r_i * Q_u, with r_i > 0 where the item was a drawn negative and r_i < 0 where it was a positive. Negatives are the
majority, so the sum of the rows' directions, each as long as every other, points to Q_u. A server step against the
forged row moves the target's views to +Q_u and raises its score for the liar; heads start from one model and
stay alike, so it rises for others too. That is a black-box form: a liar needs its own upload only, no other client,
no server weights, no agreement with other malicious clients. In a catalogue so small that a client's positives outnumber its distinct
negatives the direction comes out wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fedvlr_plugin.aggregation.rule import Cohort, Transform
from fedvlr_plugin.aggregation.uploads import ClientUploads
from fedvlr_plugin.config import Attack
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.rng import Stream, bits32, client_keys, round_half_up


def draw_malicious_clients(seed: int, n_users: int, share: float) -> torch.Tensor:
    """Draw round(share * U) malicious users, the same in every round.

    Args:
        seed: of the run.
        n_users: U.
        share: in [0, 1].

    Returns:
        Who is malicious, bool `[n_users]`.
    """
    keys = client_keys(seed, Stream.ATTACK, 0, 0, torch.arange(n_users))
    order = torch.argsort(bits32(keys, torch.zeros(1, dtype=torch.int64)), stable=True)
    liars = torch.zeros(n_users, dtype=torch.bool)
    liars[order[: round_half_up(share * n_users)]] = True
    return liars


def target_item(attack: Attack, popularity: torch.Tensor) -> int:
    """Choose the item to promote: the named one, else the least popular (the first of several).

    Args:
        attack: the condition.
        popularity: training interactions of each item, `[n_items]`.

    Raises:
        ConfigError: the named item is not in the data set.
    """
    if attack.item is None:
        return int(torch.argmin(popularity))
    if attack.item >= len(popularity):
        raise ConfigError(
            f"attack.item is {attack.item}, but the data set has items 0 to {len(popularity) - 1}; leave it out to "
            "promote the least popular one"
        )
    return attack.item


@dataclass(frozen=True)
class MaliciousClients:
    """The attack as a transform of uploads.

    Attributes:
        attack: kind and scale.
        liars: who is malicious, bool `[n_users]`.
        item: the item to promote, from 0.
    """

    attack: Attack
    liars: torch.Tensor
    item: int

    def __call__(self, uploads: ClientUploads, cohort: Cohort) -> ClientUploads:
        lies = self.liars.to(uploads.clients.device)[uploads.clients]
        if not bool(lies.any()):
            return uploads
        if self.attack.kind == "promotion":
            return self._promote(uploads, lies)
        factor = self.attack.scale if self.attack.kind == "scaling" else -self.attack.scale
        return uploads.times(torch.where(lies, factor, 1.0))

    def _promote(self, uploads: ClientUploads, lies: torch.Tensor) -> ClientUploads:
        forged = forge_rows(uploads) * self.attack.scale
        keys = torch.nonzero(lies)[:, 0] * uploads.shape.n_items + self.item
        kept = ~(lies[uploads.owner] & (uploads.items == self.item))
        all_keys, order = torch.cat([uploads.keys[kept], keys]).sort()
        return replace(uploads, keys=all_keys, rows=torch.cat([uploads.rows[kept], forged[lies]])[order])


def forge_rows(uploads: ClientUploads) -> torch.Tensor:
    """Compute -max |g_i| * q / |q| for each client, `[B, R]`: as long as the longest honest row of its upload."""
    lengths = torch.linalg.vector_norm(uploads.rows, dim=1)
    directions = uploads.rows / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)[:, None]
    q = uploads.rows.new_zeros(len(uploads.clients), uploads.shape.row_width)
    q.index_add_(0, uploads.owner, directions)
    size = torch.linalg.vector_norm(q, dim=1, keepdim=True).clamp(min=torch.finfo(lengths.dtype).tiny)
    largest = lengths.new_zeros(len(uploads.clients)).scatter_reduce(0, uploads.owner, lengths, "amax")
    forged: torch.Tensor = -largest[:, None] * q / size
    return forged


def make_transform(attack: Attack, seed: int, n_users: int, popularity: torch.Tensor) -> Transform:
    """Build the attack of a run.

    Args:
        attack: the condition.
        seed: of the run.
        n_users: U.
        popularity: training interactions of each item, `[n_items]`.

    Raises:
        ConfigError: the item to promote is not in the data set.
    """
    return MaliciousClients(
        attack, draw_malicious_clients(seed, n_users, attack.share), target_item(attack, popularity)
    )
