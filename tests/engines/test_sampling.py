"""The sampler against a slow obvious one, and the laws that its draws must keep."""

import numpy as np
import pytest
import torch
from helpers.toy import SIZES, make_toy
from scipy import stats

import fedvlr_plugin.engines.sampling as batches_module
from fedvlr_plugin.config import Protocol
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.engines.compiled import available as loops
from fedvlr_plugin.engines.histories import Histories, indptr_of
from fedvlr_plugin.engines.sampling import Batches, Sampler
from fedvlr_plugin.rng import Stream, below, bits32, client_keys, derive, keys_of


def sampler(batch_size=10_000, pairs=False, negatives=4, pool="all_items", seed=3, interactions=None):
    histories = Histories(interactions or make_toy().interactions, torch.device("cpu"))
    protocol = Protocol(negatives=negatives, negative_pool=pool)
    return Sampler(histories, protocol, batch_size, seed, pairs, torch.float64)


def active(chosen):
    return torch.nonzero(chosen.samples_per_epoch() > 0)[:, 0]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("pool", ["all_items", "train_items"])
def test_negatives_equal_the_slow_obvious_way(pool, kept):
    chosen = sampler(pool=pool)
    interactions = make_toy().interactions
    block = chosen.block(active(chosen), kept)
    assert (block.outside is not None) == kept
    drawn = iter(block.draw(round=2, epoch=1).tolist())
    base = range(interactions.n_items) if pool == "all_items" else np.unique(interactions.train_items).tolist()
    for user in block.users.tolist():
        history = set(interactions.history(user).tolist())
        outside = [item for item in base if item not in history]
        key = client_keys(3, Stream.NEGATIVES, 2, 1, torch.tensor([user]))
        for index in range(4 * len(history)):
            rank = int(below(key, torch.tensor([index]), torch.tensor([len(outside)]))[0])
            assert next(drawn) == outside[rank]
    assert next(drawn, None) is None


def test_slots_are_ordered_by_size():
    histories = Histories(make_toy().interactions, torch.device("cpu"))
    assert histories.sizes.tolist() == sorted(SIZES, reverse=True)
    assert torch.equal(histories.order[histories.slot_of], torch.arange(len(SIZES)))


@pytest.mark.parametrize("batch_size", [7, 16, 10_000])
def test_batches_of_an_epoch_are_a_partition_of_its_samples(batch_size):
    whole, parts = sampler(), sampler(batch_size=batch_size)
    block, cut = whole.block(active(whole)), parts.block(active(parts))
    (reference,) = block.epoch(1, 0)
    expected = sorted(zip(reference.owner.tolist(), reference.items.tolist(), reference.labels.tolist(), strict=True))
    got = []
    for step in cut.epoch(1, 0):
        sizes = torch.diff(step.indptr)
        assert sizes.min() >= 1 and sizes.max() <= batch_size
        assert torch.equal(step.owner, torch.repeat_interleave(torch.arange(step.clients), sizes))
        assert torch.allclose(step.share, 1.0 / sizes.double())
        got += zip(step.owner.tolist(), step.items.tolist(), step.labels.tolist(), strict=True)
    assert sorted(got) == expected


def test_every_epoch_has_all_positives_and_fresh_negatives():
    chosen = sampler()
    block = chosen.block(active(chosen))
    epochs = [next(block.epoch(1, epoch)) for epoch in range(2)]
    for step in epochs:
        positives = step.items[step.labels == 1]
        assert torch.equal(positives, block.history_items)
    assert not torch.equal(epochs[0].items, epochs[1].items)


def test_draws_do_not_depend_on_the_block():
    chosen = sampler()
    slots = active(chosen)
    whole = chosen.block(slots)
    together = torch.tensor_split(whole.draw(4, 2), (4 * torch.diff(whole.history_indptr)).cumsum(0)[:-1])
    for slot, expected in zip(slots, together, strict=True):
        assert torch.equal(chosen.block(slot[None]).draw(4, 2), expected)


def test_shuffling_moves_positives_about():
    """Over many epochs, a positive of a client with several batches falls into the first one as often as it should."""
    chosen = sampler(batch_size=25)
    block = chosen.block(active(chosen)[:1])
    firsts = [float(next(block.epoch(1, epoch)).labels.sum()) for epoch in range(400)]
    assert abs(np.mean(firsts) - 25 * 15 / 75) < 4 * np.std(firsts) / 20


def test_negatives_are_uniform_outside_the_history():
    chosen = sampler(negatives=1000)
    slot = active(chosen)[2:3]
    block = chosen.block(slot)
    counts = np.bincount(block.draw(1, 0).numpy(), minlength=23)
    history = block.history_items.numpy()
    assert counts[history].sum() == 0
    assert stats.chisquare(np.delete(counts, history)).pvalue > 1e-3


def test_pairs_join_each_negative_to_its_own_positive():
    chosen = sampler(pairs=True, negatives=3)
    block = chosen.block(active(chosen))
    (step,) = block.epoch(1, 0)
    assert step.labels is None
    assert torch.equal(step.positives, block.history_items.repeat_interleave(3))


def test_a_client_that_has_every_item_draws_nothing():
    users, items = np.array([0, 0, 0, 1]), np.array([0, 1, 2, 1])
    interactions = Interactions.from_labels(users, items, np.zeros(4, int), ("a", "b"), ("x", "y", "z"))
    chosen = sampler(interactions=interactions)
    (step,) = chosen.block(torch.arange(2)).epoch(1, 0)
    assert step.items[step.owner == 0].tolist() == [0, 1, 2]
    assert len(step.items[step.owner == 1]) == 5


def test_the_packed_sort_shuffles_as_a_stable_argsort_does():
    chosen = sampler(batch_size=7)
    block = chosen.block(active(chosen))
    batches = block.batches
    assert batches.several > 1
    base = derive(3, Stream.SHUFFLE, 2, 1)
    keys = keys_of(base, block.users)
    found, indptr = (
        batches.shuffled(block.source, base, block.users),
        indptr_of(block.sampler.samples_per_epoch()[block.slots]),
    )
    for client in range(len(block.slots)):
        begin, end = int(indptr[client]), int(indptr[client + 1])
        order = torch.arange(end - begin)
        if client < batches.several:
            order = torch.argsort(bits32(keys[client], order), stable=True)
        shuffled = block.source[begin:end][order]
        for k, cut in enumerate(batches.cuts[: -(-(end - begin) // 7)]):
            mine = found[cut.begin : cut.begin + len(cut.owner)][cut.owner == client]
            assert torch.equal(mine, shuffled[7 * k : 7 * (k + 1)])


def test_equal_random_bits_keep_their_order(monkeypatch):
    """Ties of the 32 bits are broken by the place before, as a stable sort does."""
    monkeypatch.setattr(batches_module, "sort_keys_premixed", lambda keys, mixed, low: keys.zero_().bitwise_or_(low))
    made, source = Batches(torch.tensor([5, 2]), 3, 12, torch.float64), torch.tensor([1, 4, 7, 9, 11, 0, 2])
    assert made.shuffled(source, 0, torch.arange(2)).tolist() == [1, 4, 7, 0, 2, 9, 11]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("batch_size", [7, 10_000])
@pytest.mark.parametrize("pool, kept", [("all_items", False), ("all_items", True), ("train_items", True)])
@pytest.mark.parametrize("negatives", [1, 4])
def test_the_compiled_loop_gives_what_tensor_operations_give(pairs, batch_size, pool, kept, negatives):
    """Lists kept, lists made at once, and the search (few draws for the size of the catalogue)."""
    pytest.importorskip("numba", reason="needs the extra 'speed'")
    chosen = sampler(batch_size, pairs, negatives, pool)
    block = chosen.block(active(chosen), kept)
    for epoch in range(3):
        plain, compiled = block._plain(2, epoch), block._compiled(2, epoch)
        for one, other in zip(plain, compiled, strict=True):
            assert (one is None) == (other is None)
            assert one is None or (one.dtype == other.dtype and torch.equal(one, other))


def test_the_compiled_search_and_sort_hold_on_large_clients():
    """A catalogue so large that clients with few draws search, and a client of many batches beside them."""
    pytest.importorskip("numba", reason="needs the extra 'speed'")
    from fedvlr_plugin.engines.compiled import sampling as compiled

    random = np.random.default_rng(0)
    sizes = [3000, 40, 3, 1]
    items = np.concatenate([random.choice(5000, n, replace=False) for n in sizes])
    users, names = np.repeat(np.arange(4), sizes), tuple(str(i) for i in range(5000))
    interactions = Interactions.from_labels(users, items, np.zeros(len(items), int), ("a", "b", "c", "d"), names)
    chosen = sampler(512, interactions=interactions)
    block = chosen.block(torch.arange(4))
    assert compiled.LIST_FROM * 4 * 3 < 5000 < compiled.LIST_FROM * 4 * 3000
    assert len(block.batches.cuts) == 30
    for epoch in range(2):
        for one, other in zip(block._plain(1, epoch), block._compiled(1, epoch), strict=True):
            assert one is None or torch.equal(one, other)


def test_the_compiled_functions_are_the_python_they_are_written_in(monkeypatch):
    """The sort, uncompiled, beside numpy's; overflow wraps in both."""
    pytest.importorskip("numba", reason="needs the extra 'speed'")
    from fedvlr_plugin.engines.compiled import sampling as compiled

    n, key = 37, np.uint64(derive(3, Stream.SHUFFLE, 1, 0))
    packed, ends = np.empty(n, np.uint64), np.empty(2 * n + 3, np.int64)
    sorted_by = {}
    for name, function in (("compiled", compiled.shuffle), ("python", compiled.shuffle.py_func)):
        ordered = np.empty(n, np.uint64)
        if name == "python":
            monkeypatch.setattr(compiled, "mix", compiled.mix.py_func)
        with np.errstate(over="ignore"):
            function(key, packed, ordered, ends)
        sorted_by[name] = ordered & np.uint64(0xFFFFFFFF)
    expected = torch.argsort(bits32(torch.tensor(int(key.astype(np.int64))), torch.arange(n)), stable=True)
    assert sorted_by["compiled"].tolist() == sorted_by["python"].tolist() == expected.tolist()


def test_the_compiled_loop_can_be_switched_off_or_missing(monkeypatch, caplog):
    look = loops._available.__wrapped__
    monkeypatch.setenv("FEDVLR_COMPILED", "0")
    assert not look()
    monkeypatch.delenv("FEDVLR_COMPILED")
    monkeypatch.setattr(loops.importlib.util, "find_spec", lambda name: None)
    assert not look()
    monkeypatch.setattr(loops.importlib.util, "find_spec", lambda name: object())

    def broken(name):
        raise ImportError("Numba needs NumPy 2.0 or less")

    monkeypatch.setattr(loops.importlib, "import_module", broken)
    assert not look() and "clients train without it" in caplog.text
    assert not loops.compiled_on(torch.device("meta"))
