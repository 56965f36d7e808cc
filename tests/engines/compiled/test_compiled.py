"""The compiled loops of a local step beside the obvious way, in Python and in numpy."""

import numpy as np
import pytest
import torch
from helpers.federation_toy import build, train

from fedvlr_plugin.engines import closed_form, histories
from fedvlr_plugin.engines.compiled import available
from fedvlr_plugin.engines.sampling import Batches
from fedvlr_plugin.fusion.router import RouterShape

pytest.importorskip("numba", reason="needs the extra 'speed'")
from fedvlr_plugin.engines.compiled import (
    linear,  # noqa: E402
    private_items,
    touched_items,
)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


class Block:
    """Clients with 0, 1, 5 and 150 samples (more than two chunks), some items twice; views of width 2 d or d."""

    def __init__(self, dtype=np.float64, views=1, seed=0):
        source = np.random.default_rng(seed)
        self.n_items, self.d, self.views = 40, 6, views
        counts = np.array([150, 5, 1, 0])
        self.indptr = np.concatenate([[0], np.cumsum(counts)])
        self.items = source.integers(0, self.n_items, counts.sum())
        self.labels = source.integers(0, 2, counts.sum()).astype(dtype)
        self.share = (1 / np.maximum(counts, 1)).astype(dtype)
        self.alpha = source.random(4).astype(dtype)
        self.table = source.standard_normal((self.n_items, views * self.d)).astype(dtype)
        self.theta = source.standard_normal((4, self.d)).astype(dtype)
        self.bias = source.standard_normal(4).astype(dtype)
        weights = source.random((4, views)).astype(dtype)
        self.weights = weights / weights.sum(1, keepdims=True)
        self.q = (self.weights[:, :, None] * self.theta[:, None]).reshape(4, -1) if views > 1 else self.theta
        self.sums = source.standard_normal(self.table.shape).astype(dtype)
        self.dtype = dtype

    def room(self):
        return (
            np.full(4, np.nan, self.dtype),
            np.full(self.q.shape, np.nan, self.dtype),
            np.full(4, np.nan, self.dtype),
        )

    def samples(self):
        for c in range(4):
            for p in range(self.indptr[c], self.indptr[c + 1]):
                yield c, self.items[p], self.labels[p]


def expected(block):
    losses, grad_q, grad_bias, sums = np.zeros(4), np.zeros(block.q.shape), np.zeros(4), block.sums.astype(float)
    for c, i, y in block.samples():
        s = block.q[c] @ block.table[i] + block.bias[c]
        r = (sigmoid(s) - y) * block.share[c]
        losses[c] += (np.log1p(np.exp(s)) - y * s) * block.share[c]
        grad_q[c] += r * block.table[i]
        grad_bias[c] += r
        sums[i] += block.alpha[c] * r * block.q[c]
    return losses, grad_q, grad_bias, sums


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("written", ["compiled", "python"])
def test_sampled_products_are_the_sums_they_stand_for(dtype, tolerance, written):
    block = Block(dtype, views=2)
    losses, grad_q, grad_bias = block.room()
    run = linear.sampled if written == "compiled" else linear.sampled.py_func
    sums = block.sums.copy()
    run(block.q, block.bias, block.table, block.items, block.labels, block.indptr, block.share, block.alpha, sums,
        losses, grad_q, grad_bias)  # fmt: skip
    for found, wanted in zip((losses, grad_q, grad_bias, sums), expected(block), strict=True):
        assert found.dtype == dtype and np.allclose(found, wanted, atol=tolerance, rtol=0)


def test_residuals_are_what_lies_between_the_products():
    block = Block()
    losses, _, grad_bias = block.room()
    scores = block.q @ block.table.T + block.bias[:, None]
    residual = np.full_like(scores, np.nan)
    linear.residuals(scores, block.items, block.labels, block.indptr, block.share, losses, grad_bias, residual)
    wanted = expected(block)
    found = (losses, residual @ block.table, grad_bias, block.sums + residual.T @ (block.alpha[:, None] * block.q))
    for one, other in zip(found, wanted, strict=True):
        assert np.allclose(one, other, atol=1e-12, rtol=0)


def test_large_scores_neither_overflow_nor_hide_what_is_not_finite():
    block = Block(np.float32)
    block.bias[:] = [300.0, -300.0, np.nan, np.inf]
    losses, grad_q, grad_bias = block.room()
    linear.sampled(block.q, block.bias, block.table, block.items, block.labels, block.indptr, block.share, block.alpha,
                   block.sums, losses, grad_q, grad_bias)  # fmt: skip
    near = (block.labels[:150] == 0).mean() * 300
    assert losses[0] == pytest.approx(near, rel=0.1) and np.isfinite(losses[1])
    assert np.isnan(losses[2]) and np.isnan(grad_q[2]).all() and losses[3] == 0 and (grad_q[3] == 0).all()


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


@pytest.mark.parametrize("n_items", [12, 2000])
def test_touched_items_are_the_distinct_ones_of_all_steps(n_items):
    """By a scan of the catalogue, and by sorting."""
    source = np.random.default_rng(2)
    steps = [[source.integers(0, n_items, size) for size in sizes] for sizes in ((7, 3, 0), (4, 0, 0))]
    items = np.concatenate([np.concatenate(step) for step in steps])
    indptr = np.stack([np.cumsum([0, *map(len, step)]) for step in steps])
    begins = np.array([0, indptr[0, -1]])
    keys, found = np.full_like(items, -1), np.zeros(4, np.int64)
    touched_items.touched(items, begins, indptr, n_items, keys, found)
    for c in range(3):
        wanted = np.unique(np.concatenate([step[c] for step in steps]))
        assert keys[found[c] : found[c + 1]].tolist() == wanted.tolist()


def test_scores_of_private_rows_are_added_where_they_are():
    source = np.random.default_rng(3)
    theta, values, scores = source.random((2, 4)), source.random((9, 4)), source.random((2, 5))
    wanted = scores.copy()
    for c, item, place in ((0, 1, 8), (0, 4, 2), (1, 0, 5)):
        wanted[c, item] += theta[c] @ values[place]
    touched_items.add_scores(theta, np.array([1, 4, 0]), np.array([8, 2, 5]), np.array([0, 2, 3]), values, scores)
    assert np.allclose(scores, wanted)


@pytest.mark.parametrize("fusion", ["none", "blfm"])
def test_all_ways_to_the_products_give_the_same(make_spec, monkeypatch, fusion):
    """The choices by density, and that of compiled loops, are choices of speed only."""
    scores = []
    for compiled, until, fewest in ((False, 0, 4), (False, 10**9, 4), (True, 8, 1), (True, 8, 10**9)):
        monkeypatch.setattr(available, "_available", lambda compiled=compiled: compiled)
        monkeypatch.setattr(closed_form, "DENSE_UNTIL", until)
        monkeypatch.setattr(histories, "DENSE_UNTIL", until)
        monkeypatch.setattr(closed_form, "FEWEST", fewest)
        federation = build(make_spec, "FedAvg", fusion, participation=1.0)
        losses = train(federation).loss
        scores.append(torch.cat([federation.score(torch.arange(9)), torch.full((9, 1), losses)], dim=1))
    for one, other in zip(scores, scores[1:], strict=False):
        assert not torch.equal(one, other) and torch.allclose(one, other, atol=1e-11, rtol=0)


def test_full_clients_are_a_prefix():
    counts = torch.tensor([25, 10, 9, 12, 1])
    assert [cut.full for cut in Batches(counts, 100, 40, torch.float64).cuts] == [2]
    assert [cut.full for cut in Batches(torch.tensor([25, 11]), 10, 40, torch.float64).cuts] == [2, 1, 0]


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
