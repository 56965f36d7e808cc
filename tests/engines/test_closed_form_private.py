"""What the closed forms rest on: distinct cells, a penalty's slopes, and who may use them."""

import pytest
import torch

from fedvlr_plugin.backbones import FedRAP
from fedvlr_plugin.backbones.fedrap import FedRAPParams
from fedvlr_plugin.engines import closed_form_private as cells_module
from fedvlr_plugin.engines.closed_form_private import distinct_cells
from fedvlr_plugin.engines.sampling import Step
from fedvlr_plugin.engines.workers import _has_closed_form, _has_slopes


def steps():
    """Two steps of three clients, the second of two of them; client 0 draws item 4 twice."""
    first = [(0, 1, 1), (0, 4, 0), (0, 4, 0), (1, 2, 1), (1, 0, 0), (2, 5, 1)]
    second = [(0, 4, 0), (1, 3, 1), (1, 3, 0)]
    for clients, samples in ((3, first), (2, second)):
        owner, items, labels = torch.tensor(samples).T
        counts = torch.bincount(owner)
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        yield Step(clients, indptr, owner, items, labels.double(), None, counts.double().reciprocal(), owner * 6)


@pytest.mark.parametrize("up_to", [0, 10**9])
def test_cells_are_the_distinct_pairs_with_their_weights(monkeypatch, up_to):
    """By sorting and by counting."""
    monkeypatch.setattr(cells_module, "COUNT_UP_TO", up_to)
    keys, (one, two) = distinct_cells(list(steps()), 3, 6)
    assert keys.tolist() == [1, 4, 6, 8, 9, 17]
    assert one.owner.tolist() == [0, 0, 1, 1, 2] and one.items.tolist() == [1, 4, 0, 2, 5]
    assert one.indptr.tolist() == [0, 2, 4, 5] and keys[one.places].tolist() == [1, 4, 6, 8, 17]
    assert torch.allclose(one.weight, torch.tensor([1 / 3, 2 / 3, 0.5, 0.5, 1.0], dtype=torch.float64))
    assert torch.allclose(one.positive, torch.tensor([1 / 3, 0.0, 0.0, 0.5, 1.0], dtype=torch.float64))
    assert one.share.tolist() == [0.5, 0.5, 1.0]
    assert (
        keys[two.places].tolist() == [4, 9]
        and two.weight.tolist() == [1.0, 1.0]
        and two.positive.tolist() == [0.0, 0.5]
    )


def pushed(item, own, mu, lam, edge):
    return (mu * item.abs() - lam * (own - item).pow(2).clamp(max=edge**2)).sum()


def test_fedraps_slopes_are_its_penaltys_derivatives():
    backbone = FedRAP(FedRAPParams(cap=1.0), 8, 8)
    source = torch.Generator().manual_seed(0)
    item, own = (torch.randn(6, 8, dtype=torch.float64, generator=source).requires_grad_() for _ in range(2))
    assert ((own - item) ** 2 > 1).any() and ((own - item) ** 2 < 1).any()

    class View:
        def item(self):
            return item[None]

        def own(self):
            return own[None]

        def mean(self, values):
            return values.sum()[None]  # the sum, so that slopes come undivided

    total = backbone.penalty(View(), 3)[0]
    by_item, by_own = torch.autograd.grad(total, [item, own])
    assert torch.allclose(total, pushed(item, own, *backbone.penalty_push(3)))
    slopes = backbone.penalty_slopes(item.detach(), own.detach(), 3)
    assert torch.allclose(slopes.value.sum(), total)
    assert torch.allclose(slopes.item, by_item) and torch.allclose(slopes.own, by_own)


def test_another_penalty_without_its_slopes_goes_through_autograd():
    class Doubled(FedRAP):
        def penalty(self, x, round):
            return 2 * super().penalty(x, round)

    class Sloped(Doubled):
        def penalty_slopes(self, item, own, round):
            return None

    one, doubled, sloped = (kind(FedRAPParams(), 8, 8) for kind in (FedRAP, Doubled, Sloped))
    assert [_has_closed_form(backbone) for backbone in (one, doubled, sloped)] == [True, False, True]
    # slopes of one's own are heard by the tensor operations, and the compiled loops leave such a backbone to them
    assert [_has_slopes(backbone, "penalty_push") for backbone in (one, doubled, sloped)] == [True, False, False]
