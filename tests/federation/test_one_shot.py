"""FedEASE's round: equal to the centralized closed form, secure sums exact, noise of the right size, bytes by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_plugin.centralized.closed_form import count_pairs
from fedvlr_plugin.config import Conditions, Faults, Privacy, Robust, RunSpec, Secure, TrainingConfig, build_config
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.evaluation.content import history_matrix
from fedvlr_plugin.federation import one_shot
from fedvlr_plugin.federation.one_shot import OneShotParams, gather, pair_norms, triangle_entries
from fedvlr_plugin.privacy.guarantee import guarantee_of

GIB = 1024**3


def clients(n_users: int = 9, n_items: int = 14, seed: int = 0) -> Interactions:
    source = np.random.default_rng(seed)
    chosen = source.random((n_users, n_items)) < 0.35
    chosen[0] = False
    items = [np.flatnonzero(row) for row in chosen]
    indptr = np.cumsum([0, *map(len, items)]).astype(np.int64)
    held = np.full(n_users, -1)
    names = tuple(f"u{u}" for u in range(n_users)), tuple(f"i{i}" for i in range(n_items))
    return Interactions(n_users, n_items, indptr, np.concatenate(items).astype(np.int64), held, held, *names)


def spec(seed: int = 0, **conditions: object) -> RunSpec:
    return RunSpec(
        dataset="toy",
        row="FedEASE",
        seed=seed,
        training=TrainingConfig(rounds=1),
        conditions=build_config(Conditions, conditions),
    )


def upper(n_items: int, found: one_shot.OneShotSum) -> np.ndarray:
    return np.triu(found.gram._matrix)  # the counts, before any inversion


@pytest.fixture(params=[1, 20, 1 << 22])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Columns one by one, a few, and all at once; for secure sums as well."""
    entries: int = request.param
    monkeypatch.setattr(one_shot, "BLOCK_ENTRIES", entries)
    return entries


def in_blocks(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Secure sums of at most so many numbers at a time."""
    monkeypatch.setattr(one_shot, "SECURE_BLOCK_BYTES", 0)
    monkeypatch.setattr(one_shot, "SMALLEST_SECURE_BLOCK", entries)


def test_the_sum_is_the_co_counts(blocks: int) -> None:
    data = clients()
    found = gather(spec(), data, OneShotParams(minimum_count=1), GIB)
    x = history_matrix(data).toarray()
    seen = x.sum(axis=0) >= 1
    np.testing.assert_array_equal(upper(14, found), np.triu(x.T @ x))
    np.testing.assert_array_equal(found.kept, np.flatnonzero(seen))
    np.testing.assert_array_equal(found.gram.counts, count_pairs(data).counts)


def test_rare_items_leave_nothing_behind(blocks: int) -> None:
    data = clients()
    x = history_matrix(data).toarray()
    rare = x.sum(axis=0) < 4
    assert 0 < rare.sum() < 14
    found = gather(spec(), data, OneShotParams(minimum_count=4), GIB)
    x[:, rare] = 0.0
    np.testing.assert_array_equal(upper(14, found), np.triu(x.T @ x))


@pytest.mark.parametrize("entries", [10, 1 << 20])
def test_secure_sums_are_exact(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clients()
    in_blocks(monkeypatch, entries)
    plain = gather(spec(), data, OneShotParams(), GIB)
    secure = gather(spec(secure=Secure().model_dump()), data, OneShotParams(), GIB)
    np.testing.assert_array_equal(upper(14, secure), upper(14, plain))
    assert secure.accounts["clamped"] == 0.0
    assert secure.accounts["bytes_up"] == plain.accounts["bytes_up_secure"] > plain.accounts["bytes_up"]


def test_lost_clients_are_lost_in_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is the sum of the clients that are left, whatever the number of pieces."""
    data = clients(n_users=12)
    x = history_matrix(data).toarray()
    wanted = {"secure": {"lost_before": 0.2, "lost_after": 0.05, "threshold": 0.51}}
    sums = []
    for entries in (7, 1 << 20):
        in_blocks(monkeypatch, entries)
        found = gather(spec(3, **wanted), data, OneShotParams(minimum_count=1), GIB)
        sums.append(upper(14, found))
        assert found.accounts["lost_before"] > 0
    np.testing.assert_array_equal(sums[0], sums[1])
    lost = int(found.accounts["lost_before"])
    assert (np.diag(sums[0]) <= x.sum(axis=0)).all()
    assert np.diag(sums[0]).sum() < x.sum() and lost < 12


def test_a_sum_that_is_given_up_is_said() -> None:
    with pytest.raises(FedVLRError, match="given up"):
        gather(spec(secure={"lost_after": 0.9, "threshold": 1.0}), clients(), OneShotParams(), GIB)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(1, 12), st.data())
def test_triangle_entries_are_all_pairs(seed: int, n_users: int, n_items: int, data: st.DataObject) -> None:
    interactions = clients(n_users, max(n_items, 2), seed)
    x = history_matrix(interactions)
    first = data.draw(st.integers(0, interactions.n_items - 1))
    last = data.draw(st.integers(first + 1, interactions.n_items))
    owners, places = triangle_entries(x, first, last)
    expected = {
        (user, column * (column + 1) // 2 + row)
        for user in range(n_users)
        for column in interactions.history(user)
        for row in interactions.history(user)
        if row <= column and first <= column < last
    }
    assert set(zip(owners.tolist(), places.tolist(), strict=True)) == expected
    assert len(owners) == len(expected)


def test_clipping_and_noise() -> None:
    data = clients(n_users=40, n_items=60, seed=2)
    x = history_matrix(data)
    norms = pair_norms(x)
    dense = x.toarray()
    by_hand = [np.linalg.norm(np.triu(np.outer(row, row))) for row in dense]
    np.testing.assert_allclose(norms, by_hand, atol=1e-12)
    wanted = {"privacy": {"mechanism": "gaussian", "noise_multiplier": 0.7, "clip": 5.0}}
    private = spec(**wanted)
    found = gather(private, data, OneShotParams(minimum_count=30), GIB)
    assert len(found.kept) == 60  # no exact count under noise
    factors = np.minimum(1.0, 5.0 / np.maximum(norms, 1e-300))
    assert (factors * norms <= 5.0 + 1e-9).all() and (factors < 1).any()
    clean = dense.T @ (factors[:, None] * dense)
    noise = (upper(60, found) - clean)[np.triu_indices(60)]
    assert abs(noise.std() - 3.5) < 0.15 and abs(noise.mean()) < 0.25  # 1830 draws: 2.6 and 3 standard errors
    promised = guarantee_of(private, 40)
    assert promised is not None and found.accounts["epsilon"] == promised.epsilon
    other = gather(private.model_copy(update={"seed": 1}), data, OneShotParams(), GIB)
    assert abs(np.corrcoef((upper(60, other) - clean)[np.triu_indices(60)], noise)[0, 1]) < 0.1


def test_one_round_is_what_epsilon_pays_for() -> None:
    wanted = spec(privacy={"epsilon": 8.0, "clip": 1.0})
    promised = guarantee_of(wanted, 40)
    assert promised is not None and promised.rounds == 1 and promised.epsilon is not None
    assert 7.9 < promised.epsilon <= 8.0


def test_noise_on_a_secure_sum_is_the_same_noise() -> None:
    data, wanted = clients(), {"privacy": {"noise_multiplier": 0.5, "clip": 3.0}}
    plain = gather(spec(**wanted), data, OneShotParams(), GIB)
    secure = gather(spec(**wanted, secure={}), data, OneShotParams(), GIB)
    np.testing.assert_allclose(upper(14, secure), upper(14, plain), atol=1e-6)


def test_bytes_by_hand() -> None:
    # three clients with {0, 1}, {0}, {0, 1, 2}; items 0 and 1 have two consumers or more
    held = np.full(3, -1)
    names = ("a", "b", "c"), ("x", "y", "z")
    data = Interactions(3, 3, np.array([0, 2, 3, 6]), np.array([0, 1, 0, 0, 1, 2]), held, held, *names)
    accounts = gather(spec(), data, OneShotParams(minimum_count=2), GIB).accounts
    assert accounts["items_kept"] == 2
    assert accounts["bytes_up"] == (4 * 6 + 8 * (3 + 1 + 3)) / 3
    assert accounts["bytes_up_secure"] == 4 * 3 + 4 * 3
    assert accounts["bytes_down"] == 4 * 2 + 4 * 2 * (2 + 1 + 2) / 3
    assert accounts["bytes_down_all"] == 4 * 2 + 4 * 4
    every = gather(spec(), data, OneShotParams(minimum_count=2, download="all"), GIB).accounts
    assert every["bytes_down"] == every["bytes_down_all"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"robust": Robust(rule="median").model_dump()}, "takes no 'robust'"),
        ({"faults": Faults(dropout=0.5).model_dump()}, "takes no 'faults'"),
        ({"privacy": Privacy(epsilon=1.0, adaptive_quantile=0.5).model_dump()}, "cannot adapt"),
    ],
)
def test_refused(conditions: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gather(spec(**conditions), clients(), OneShotParams(), GIB)


def test_many_rounds_and_little_memory_are_refused() -> None:
    many = spec().model_copy(update={"training": TrainingConfig(rounds=2)})
    with pytest.raises(ConfigError, match="one round of all clients"):
        gather(many, clients(), OneShotParams(), GIB)
    with pytest.raises(ConfigError, match="memory budget"):
        gather(spec(), clients(), OneShotParams(), 100)
