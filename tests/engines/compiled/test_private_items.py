"""A compiled round over private item rows beside autograd, step by step."""

import numpy as np
import pytest
import torch
from helpers.compiled_toy import Block
from helpers.federation_toy import build, train

from fedvlr_plugin.engines.compiled import available
from fedvlr_plugin.fusion.router import RouterShape

pytest.importorskip("numba", reason="needs the extra 'speed'")
from fedvlr_plugin.engines.compiled import private_items, touched_items  # noqa: E402


def private(values, adam, seed):
    """A group of four clients' parameters in the middle of their lives, and copies of what it was before."""
    source = np.random.default_rng(seed)
    first = (0.1 * source.standard_normal(values.shape)).astype(values.dtype) if adam else values[:0].copy()
    group = private_items.Private(values.copy(), first, first**2 + values.dtype.type(0.01), np.arange(4))
    return group, [part.astype(float) for part in (group.values, group.first, group.second)]


def descended(before, grad, lr, age):
    """The obvious optimiser: values after one step, and the moments."""
    values, first, second = before
    if first is None:
        return values - lr * grad, None, None
    first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
    return values - lr * (first / (1 - 0.9**age)) / (np.sqrt(second / (1 - 0.999**age)) + 1e-8), first, second


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("penalised", [False, True])
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-11), (np.float32, 2e-4)])
def test_a_round_over_private_rows_is_autograd_step_by_step(views, penalised, adam, dtype, tolerance):
    """Two steps of each client, the whole loss of each written down at once; private rows in any place of the store."""
    block, other = Block(dtype, views), Block(dtype, views, seed=5)
    source = np.random.default_rng(1)
    parts = (block, other)
    mine = [[slice(part.indptr[c], part.indptr[c + 1]) for part in parts] for c in range(4)]
    keys = [
        np.unique(np.concatenate([p.items[at] for p, at in zip(parts, mine[c], strict=True)] + [[3]])) for c in range(4)
    ]
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in keys])])
    places = source.permutation(indptr[-1] + 20)[: indptr[-1]]
    n_hidden = 5 if views > 1 else 0
    wide = views * block.d if n_hidden else 0
    n_params = n_hidden * (wide + 1) + views * (n_hidden + 1) if n_hidden else 0
    store, old_rows = private(source.standard_normal((indptr[-1] + 20, block.d)).astype(dtype), adam, 2)
    head, old_head = private(np.concatenate([block.theta, block.bias[:, None]], 1), adam, 3)
    router, old_router = private(source.standard_normal((4, n_params)).astype(dtype), adam, 4)
    pooled = source.standard_normal((4, wide)).astype(dtype)
    grad_pooled, losses = np.zeros_like(pooled), np.full(4, np.nan, dtype)
    mu, lam, edge = 0.3, 0.2, 0.8
    sums = torch.from_numpy(block.sums.astype(float))
    private_items.train(
        private_items.Samples(
            np.concatenate([block.items, other.items]),
            np.concatenate([block.labels, other.labels]),
            np.array([0, len(block.items)]),
            np.stack([block.indptr, other.indptr]),
        ),
        private_items.Touched(np.concatenate(keys), places, indptr),
        private_items.Shared(block.table, block.sums),
        store, head, router, n_hidden, pooled, grad_pooled, block.alpha,
        np.array([mu, lam, edge] if penalised else [], dtype), (0.05, 0.04, 0.03), losses,
    )  # fmt: skip

    shape = RouterShape(views, block.d, n_hidden)
    wanted_rows, wanted_pooled = old_rows[0].copy(), np.zeros((4, wide))
    for c in range(4):
        state = {
            "rows": [part[places[indptr[c] : indptr[c + 1]]] if len(part) else None for part in old_rows],
            "head": [part[c] if len(part) else None for part in old_head],
            "router": [part[c] if len(part) else None for part in old_router],
        }
        row_at, found = {int(i): k for k, i in enumerate(keys[c])}, []
        for part, at in zip(parts, mine[c], strict=True):
            items, labels = part.items[at].tolist(), torch.from_numpy(part.labels[at].astype(float))
            if not items:
                continue
            leaves = {name: torch.from_numpy(kept[0]).requires_grad_() for name, kept in state.items()}
            table = torch.from_numpy(block.table.astype(float)).requires_grad_()
            p = torch.from_numpy(pooled[c].astype(float)).requires_grad_()
            w = torch.ones(1, dtype=torch.float64)
            if n_hidden:
                w = shape.forward(leaves["router"][None], p[None]).weights[0]
            e = (w[:, None] * table.view(-1, views, block.d)).sum(1)
            rows = leaves["rows"]
            seen = [row_at[i] for i in items]
            s = (e[items] + rows[seen]) @ leaves["head"][:-1] + leaves["head"][-1]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(s, labels)
            distinct = sorted(set(items))
            if penalised:
                apart = (rows[[row_at[i] for i in distinct]] - e[distinct]) ** 2
                assert len(distinct) < 5 or ((apart > edge**2).any() and (apart < edge**2).any())
                loss = loss + (mu * e[distinct].abs() - lam * apart.clamp(max=edge**2)).mean()
            loss.backward()
            found.append(loss.item())
            sums += float(block.alpha[c]) * table.grad
            for name, lr in (("head", 0.04), ("router", 0.03)) if n_hidden else (("head", 0.04),):
                state[name] = descended(state[name], leaves[name].grad.numpy(), lr, c + len(found))
            if n_hidden:
                wanted_pooled[c] += p.grad.numpy()
            touched = np.array([row_at[i] for i in distinct])
            before = [None if kept is None else kept[touched] for kept in state["rows"]]
            for kept, new in zip(
                state["rows"], descended(before, rows.grad.numpy()[touched], 0.05, c + len(found)), strict=True
            ):
                if kept is not None:
                    kept[touched] = new
        assert losses[c] == pytest.approx(np.mean(found) if found else 0.0, abs=tolerance)
        assert head.steps[c] == store.steps[c] == c + len(found)
        wanted_rows[places[indptr[c] : indptr[c + 1]]] = state["rows"][0]
        assert np.allclose(head.values[c], state["head"][0], atol=tolerance)
        assert np.allclose(router.values[c], state["router"][0], atol=tolerance)
    assert np.allclose(store.values, wanted_rows, atol=tolerance, rtol=0)
    assert np.allclose(grad_pooled, wanted_pooled, atol=tolerance, rtol=0)
    assert np.allclose(block.sums, sums, atol=tolerance, rtol=0)


def test_scores_of_private_rows_are_added_where_they_are():
    source = np.random.default_rng(3)
    theta, values, scores = source.random((2, 4)), source.random((9, 4)), source.random((2, 5))
    wanted = scores.copy()
    for c, item, place in ((0, 1, 8), (0, 4, 2), (1, 0, 5)):
        wanted[c, item] += theta[c] @ values[place]
    touched_items.add_scores(theta, np.array([1, 4, 0]), np.array([8, 2, 5]), np.array([0, 2, 3]), values, scores)
    assert np.allclose(scores, wanted)


@pytest.mark.parametrize("fusion", ["none", "blfm"])
@pytest.mark.parametrize("backbone", ["FedRAP", "PFedRec"])
def test_compiled_rounds_in_float32_are_the_tensor_operations_to_rounding(make_spec, monkeypatch, backbone, fusion):
    def single(*arguments, **changes):
        return make_spec(*arguments, **changes).model_copy(update={"dtype": "float32"})

    runs = []
    for compiled in (True, False):
        monkeypatch.setattr(available, "_available", lambda compiled=compiled: compiled)
        federation = build(single, backbone, fusion, participation=1.0)
        assert federation.engine.workers.kind == ("compiled_private" if compiled else "closed_form_private")
        train(federation, 1)
        runs.append(federation.score(torch.arange(9)))
    assert torch.allclose(*runs, atol=1e-3, rtol=0) and not torch.equal(*runs)
