"""The suite of view operators: shapes, generators, gradients, and training inside a federation."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from fedvlr_plugin.fusion.operators import ViewOperator
from fedvlr_plugin.fusion.views import make_view
from fedvlr_plugin.testing.toy import assert_same, toy_federation, train

NAMES = (("id",), ("text", "id"), ("vision", "text", "id"), ("text",))


class ViewTests:
    """Inherit it as `class TestMine(ViewTests)` and set `view`.

    Class attributes:
        view: name under which the operator is registered.
        dim: d, the width it is tested with.
        host: a backbone with routers that the view is trained with.
    """

    view: ClassVar[str]
    dim: ClassVar[int] = 4
    host: ClassVar[str] = "FCF"

    def make(self, names: tuple[str, ...], seed: int = 0) -> ViewOperator:
        """Make the operator over the named inputs, in float64."""
        operator = make_view(self.view, names, self.dim, torch.Generator().manual_seed(seed))
        return operator.to(torch.float64)

    def inputs(self, names: tuple[str, ...], n_items: int = 5) -> list[torch.Tensor]:
        """Draw an input `[n_items, d]` for each name."""
        source = torch.Generator().manual_seed(1)
        return [torch.randn(n_items, self.dim, dtype=torch.float64, generator=source) for _ in names]

    @pytest.mark.parametrize("names", NAMES)
    def test_one_finite_view_for_any_number_of_inputs(self, names: tuple[str, ...]) -> None:
        view = self.make(names)(self.inputs(names))
        assert view.shape == (5, self.dim) and view.dtype == torch.float64
        assert bool(torch.isfinite(view).all())

    def test_parameters_come_from_the_generator_alone(self) -> None:
        before = torch.get_rng_state()
        one, same = self.make(NAMES[2]), self.make(NAMES[2])
        assert torch.equal(torch.get_rng_state(), before)
        for name, value in one.state_dict().items():
            assert torch.equal(value, same.state_dict()[name]), name

    def test_the_order_of_items_is_kept(self) -> None:
        operator, inputs = self.make(NAMES[2]), self.inputs(NAMES[2])
        order = torch.tensor([3, 0, 4, 2, 1])
        shuffled = operator([values[order] for values in inputs])
        assert torch.allclose(shuffled, operator(inputs)[order], atol=1e-12, rtol=0)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        operator = self.make(NAMES[1])
        leaves = [values.requires_grad_() for values in self.inputs(NAMES[1], n_items=3)]
        assert torch.autograd.gradcheck(lambda *values: operator(list(values)), leaves, atol=1e-5)

    def test_every_parameter_and_every_input_matters(self) -> None:
        operator = self.make(NAMES[2])
        leaves = [values.requires_grad_() for values in self.inputs(NAMES[2], n_items=40)]
        source = torch.Generator().manual_seed(2)
        weights = torch.randn(40, self.dim, dtype=torch.float64, generator=source)
        (operator(leaves) * weights).sum().backward()
        for name, leaf in [*operator.named_parameters(), *zip(NAMES[2], leaves, strict=True)]:
            assert leaf.grad is not None and bool(leaf.grad.any()), f"nothing depends on {name}"

    @pytest.mark.parametrize("others", [(), ("sum",)])
    def test_it_trains_under_both_engines(self, others: tuple[str, ...]) -> None:
        views = tuple(dict.fromkeys((*others, self.view)))
        slow = toy_federation(self.host, "blfm", "sequential", changes={"views": views})
        fast = toy_federation(self.host, "blfm", changes={"views": views})
        assert_same(slow, fast, train(slow), train(fast))
