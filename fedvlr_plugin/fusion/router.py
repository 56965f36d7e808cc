"""The client-side router: a private mixture of experts over the views (algorithm.md section 4, paper Eq. 4).

    p_u = [mean_{i in train(u)} F_1i ; ... ; mean F_Gi]  in R^{G d}
    a = W1 p + b1,  h = relu(a),  w_u = softmax(W2 h + b2),   Fbar_i = sum_j w_uj F_ji

One weight vector per user. Parameters live flat, `[P]` per client with P = Gd*H + H + H*G + G (12,547 at G = 3,
d = H = 64), so that a block of clients is one matrix `[B, P]`. `forward` is plain torch and differentiable;
`backward` is its closed-form gradient, which the batched engine uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class RouterTrace(NamedTuple):
    """What `backward` needs of a `forward`.

    Attributes:
        pooled: p, pooled histories, `[B, G d]`.
        hidden: h, `[B, H]`.
        weights: w, `[B, G]`.
    """

    pooled: torch.Tensor
    hidden: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class RouterShape:
    """Sizes of a router.

    Attributes:
        n_views: G.
        width: width of a view.
        hidden: H, hidden units.
    """

    n_views: int
    width: int
    hidden: int = 64

    @property
    def n_params(self) -> int:
        """Return P, the number of parameters of one client's router."""
        return self.hidden * (self.n_views * self.width + 1) + self.n_views * (self.hidden + 1)

    def split(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Split flat parameters `[B, P]` without copying: W1 `[B, H, Gd]`, b1 `[B, H]`, W2 `[B, G, H]`, b2 `[B, G]`."""
        pooled, batch = self.n_views * self.width, len(flat)
        sizes = [self.hidden * pooled, self.hidden, self.n_views * self.hidden, self.n_views]
        w1, b1, w2, b2 = flat.split(sizes, dim=1)
        return w1.view(batch, self.hidden, pooled), b1, w2.view(batch, self.n_views, self.hidden), b2

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Draw the initial parameters `[P]` of every client: Xavier-uniform weights, zero biases."""
        flat = torch.zeros(1, self.n_params, dtype=dtype)
        w1, _, w2, _ = self.split(flat)
        for weight in (w1[0], w2[0]):
            torch.nn.init.xavier_uniform_(weight, generator=generator)
        return flat[0]

    def forward(self, flat: torch.Tensor, pooled: torch.Tensor) -> RouterTrace:
        """Compute the weights of B clients.

        Args:
            flat: their parameters, `[B, P]`.
            pooled: their pooled histories, `[B, G d]`.
        """
        w1, b1, w2, b2 = self.split(flat)
        hidden = torch.relu(_rows_times(pooled, w1.transpose(1, 2)) + b1)
        return RouterTrace(pooled, hidden, torch.softmax(_rows_times(hidden, w2.transpose(1, 2)) + b2, dim=1))

    def backward(
        self, flat: torch.Tensor, trace: RouterTrace, grad_weights: torch.Tensor, grad_flat: torch.Tensor
    ) -> torch.Tensor:
        """Compute the gradient in closed form.

        Args:
            flat: parameters, `[B, P]`.
            trace: what `forward` returned for them.
            grad_weights: dL/dw, `[B, G]`.
            grad_flat: receives dL/dparameters, `[B, P]`.

        Returns:
            dL/dp, `[B, G d]`.
        """
        w1, _, w2, _ = self.split(flat)
        g_w1, g_b1, g_w2, g_b2 = self.split(grad_flat)
        weights = trace.weights
        logits = weights * (grad_weights - (weights * grad_weights).sum(1, keepdim=True))
        g_b2.copy_(logits)
        torch.mul(logits[:, :, None], trace.hidden[:, None, :], out=g_w2)
        hidden = _rows_times(logits, w2) * (trace.hidden > 0)
        g_b1.copy_(hidden)
        torch.mul(hidden[:, :, None], trace.pooled[:, None, :], out=g_w1)
        return _rows_times(hidden, w1)


def _rows_times(rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Multiply `[B, k]` by `[B, k, l]` to `[B, l]`; a vector from the left is several times faster than from the right."""
    return torch.bmm(rows[:, None], matrices)[:, 0]
