"""Row-wise and fused Adam against torch's own, one optimiser per client, with clients of different age."""

import pytest
import torch

from fedvlr_plugin.engines import optimizers
from fedvlr_plugin.engines.optimizers import step_rows


@pytest.mark.parametrize("most_runs", [0, 4])
def test_adam_rows_equal_one_torch_adam_per_client(monkeypatch, most_runs):
    monkeypatch.setattr(optimizers, "_MAX_RUNS", most_runs)
    source = torch.Generator().manual_seed(0)
    values = torch.randn(5, 7, dtype=torch.float64, generator=source)
    clients = [row.clone().requires_grad_() for row in values]
    own = [torch.optim.Adam([client], lr=0.05) for client in clients]
    moments, counts = (torch.zeros_like(values), torch.zeros_like(values)), torch.zeros(5, dtype=torch.int64)
    for active in (5, 2, 3, 5):
        grad = torch.randn(active, 7, dtype=torch.float64, generator=source)
        counts[:active] += 1
        step_rows("adam", values[:active], (moments[0][:active], moments[1][:active]), grad, counts[:active], 0.05)
        for client, optimizer, row in zip(clients, own, grad, strict=False):
            client.grad = row.clone()
            optimizer.step()
    assert torch.allclose(values, torch.stack([c.detach() for c in clients]), atol=1e-12, rtol=0)


def test_sgd_is_the_plain_step():
    values, grad = torch.ones(2, 3), torch.full((2, 3), 2.0)
    step_rows("sgd", values, None, grad, torch.ones(2, dtype=torch.int64), 0.25)
    assert torch.equal(values, torch.full((2, 3), 0.5))
