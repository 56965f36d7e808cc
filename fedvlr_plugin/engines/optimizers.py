"""Local optimisers over the rows of a block of clients: Adam with a step count per client, and SGD.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
    p = p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)          b1 = 0.9, b2 = 0.999, eps = 1e-8

t is the client's own count of local steps, so a block mixes clients of different age. Runs of neighbours with the
same t go through torch's fused kernel in one pass over memory; many short runs go row-wise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.optim.adam import adam

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
LocalOptimizer = Literal["adam", "sgd"]
_MAX_RUNS = 4


def step_rows(
    optimizer: LocalOptimizer,
    values: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor] | None,
    grad: torch.Tensor,
    counts: torch.Tensor,
    lr: float,
    indptr: torch.Tensor | None = None,
) -> None:
    """One step in place on `values [B, P]` with `grad [B, P]`; `counts [B]` already count this step.

    With `indptr [C + 1]` client c has the rows `indptr[c]:indptr[c + 1]`, and `counts [C]` are the clients'.
    """
    if optimizer == "sgd" or moments is None:
        values.add_(grad, alpha=-lr)
        return
    ages, lengths = torch.unique_consecutive(counts, return_counts=True)
    if len(ages) > _MAX_RUNS or not values.is_contiguous():
        each = counts if indptr is None else counts.repeat_interleave(torch.diff(indptr))
        adam_rows(values, *moments, grad, each, lr)
        return
    ends = lengths.cumsum(0) if indptr is None else indptr[lengths.cumsum(0)]
    begin = 0
    for age, end in zip(ages.tolist(), ends.tolist(), strict=True):
        rows = slice(begin, end)
        adam(
            [values[rows]],
            [grad[rows]],
            [moments[0][rows]],
            [moments[1][rows]],
            [],
            [torch.tensor(float(age - 1), device=values.device)],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )
        begin = end


def adam_rows(
    values: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    grad: torch.Tensor,
    counts: torch.Tensor,
    lr: float,
) -> None:
    """Adam in place, every row with its own step count `counts [B]`."""
    age = counts.to(values.dtype)[:, None]
    root = torch.sqrt(1.0 - BETA2**age)
    rate = lr / (1.0 - BETA1**age)
    first.lerp_(grad, 1.0 - BETA1)
    second.mul_(BETA2).addcmul_(grad, grad, value=1.0 - BETA2)
    scale = (root * rate).reciprocal_()
    values.addcdiv_(first, second.sqrt().mul_(scale).add_(EPS / rate), value=-1.0)
