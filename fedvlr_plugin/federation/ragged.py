"""Sparse products over ragged samples: the three kernels that a folded local step needs (algorithm.md section 11).

A block's samples are pairs (owner c, item i) with weights r, sorted by owner. They are the non-zeros of a
residual matrix R [B, n] that is never built:

    scores:   s_k = Q_{c(k)} . F_{i(k)}            (sampled dense-dense product)
    forward:  (R F)_c = sum_k r_k F_{i(k)}         (sparse times dense)
    uplink:   (R^T Q)_i += sum_k r_k Q_{c(k)}      (its transpose)

On a CPU the first is torch's sampled_addmm and the second its embedding_bag, both several times faster than
gathers; elsewhere gathers are used for the first. Blocks so dense that the product of everything is cheaper take
that (sampled_addmm also refuses more samples than the block has cells). Imports nothing of ours.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as nnf

DENSE_FROM = 25
DENSE_UNTIL = 8  # cells per sample up to which whole products are cheaper than sampled ones, all the way


def dots(
    q: torch.Tensor, table: torch.Tensor, indptr: torch.Tensor, owner: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """`[K]`: q `[B, w]` of each sample's owner times table `[n, w]` at its item."""
    if DENSE_UNTIL * len(items) > len(q) * len(table):
        return (q @ table.t()).view(-1).index_select(0, owner * len(table) + items)
    if q.device.type != "cpu":
        return (q[owner] * table[items]).sum(1)
    pattern = _csr(indptr, items, q.new_zeros(len(items)), len(q), len(table))
    out: torch.Tensor = torch.sparse.sampled_addmm(pattern, q, table.t(), beta=0.0).values()
    return out


def _csr(indptr: torch.Tensor, items: torch.Tensor, values: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.sparse_csr_tensor(indptr, items, values, (rows, columns), check_invariants=False)


def _hear_the_warning() -> None:
    """torch calls CSR a beta feature, once per process: here, where no other thread changes the warnings' filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), 1, 1)


_hear_the_warning()


def bags(table: torch.Tensor, indptr: torch.Tensor, items: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`[B, w]`: the weighted sum of table rows over each owner's samples; zero for an owner without any."""
    return nnf.embedding_bag(items, table, indptr, mode="sum", per_sample_weights=weights, include_last_offset=True)


def scatter(
    out: torch.Tensor, items: torch.Tensor, q: torch.Tensor, owner: torch.Tensor, weights: torch.Tensor
) -> None:
    """Adds weight times q `[B, w]` of the owner to `out [n, w]` at the item of each sample, in place.

    Where the block is dense enough the residual matrix is built after all and multiplied: a matrix product does
    25 times the arithmetic of a scatter in the same time.
    """
    if len(items) * DENSE_FROM > len(q) * len(out):
        residual = q.new_zeros(len(q) * len(out)).index_add_(0, owner * len(out) + items, weights)
        out.addmm_(residual.view(len(q), len(out)).t(), q)
        return
    rows = q.index_select(0, owner)
    out.index_add_(0, items, rows.mul_(weights[:, None]))


def totals(values: torch.Tensor, indptr: torch.Tensor) -> torch.Tensor:
    """`[B]`: sums of `values [K]` over each owner's samples."""
    return torch.segment_reduce(values, "sum", offsets=indptr)


def indptr_of(counts: torch.Tensor) -> torch.Tensor:
    """`[B + 1]`: where each owner's samples begin, from how many each has `[B]`; the last entry is their number."""
    out = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=out[1:])
    return out


def spread(values: torch.Tensor, counts: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """`[K]`: `values [B]` of each sample's owner, for `counts [B]` samples of each and `owner [K]`, sorted."""
    if values.device.type != "cpu":
        return values.index_select(0, owner)
    return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
