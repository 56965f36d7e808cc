"""Negatives and batches: never a training item of the user, the pool that the protocol names, labels that fit."""

import numpy as np
import pytest
from helpers.centralized_toy import data

from fedvlr_plugin.centralized.batches import Batches, NegativeSampler
from fedvlr_plugin.data.synthetic import generated

CONFIG = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "LABEL_FIELD": "label",
    "NEG_PREFIX": "neg_",
    "device": "cpu",
}
DATA = generated(30, 200, 400, width=2).interactions


def make(kind, pool="all_items", size=64, negatives=1, interactions=DATA):
    rows = (interactions.train_users, interactions.train_items)
    return Batches(kind, rows, NegativeSampler(interactions, pool), size, negatives, CONFIG)


def collect(batches, seed=0):
    found = list(batches.epoch(np.random.default_rng(seed)))
    return {field: np.concatenate([batch[field].numpy() for batch in found]) for field in found[0].interaction}


@pytest.mark.parametrize("pool", ["all_items", "train_items"])
def test_negatives_are_outside_the_history_and_inside_the_pool(pool):
    seen = set(zip(DATA.train_users.tolist(), DATA.train_items.tolist(), strict=True))
    drawn = [collect(make("pairs", pool), seed) for seed in range(20)]
    for columns in drawn:
        pairs = zip((columns["user_id"] - 1).tolist(), (columns["neg_item_id"] - 1).tolist(), strict=True)
        assert not seen & set(pairs)
    cold = set(np.flatnonzero(DATA.cold_items).tolist())
    used = set(np.concatenate([columns["neg_item_id"] - 1 for columns in drawn]).tolist())
    assert cold and bool(cold & used) == (pool == "all_items")


def test_an_epoch_has_every_row_once_in_a_new_order():
    first, second = collect(make("pairs"), 1), collect(make("pairs"), 2)
    rows = sorted(zip((DATA.train_users + 1).tolist(), (DATA.train_items + 1).tolist(), strict=True))
    for columns in (first, second):
        assert sorted(zip(columns["user_id"].tolist(), columns["item_id"].tolist(), strict=True)) == rows
    assert first["item_id"].tolist() != second["item_id"].tolist()
    again = collect(make("pairs"), 1)
    assert all((again[field] == first[field]).all() for field in first)


def test_several_negatives_repeat_the_pair():
    assert len(collect(make("pairs", negatives=3))["user_id"]) == 3 * len(DATA.train_items)


def test_labelled_batches_hold_negatives_with_label_zero():
    batches = make("labelled", size=60, negatives=2)
    found = next(iter(batches.epoch(np.random.default_rng(0))))
    assert len(found) == 60 and found["label"].tolist() == [1.0] * 20 + [0.0] * 40
    columns = collect(batches)
    positives = columns["label"] == 1
    assert positives.sum() == len(DATA.train_items) and (~positives).sum() == 2 * positives.sum()


def test_user_batches_name_each_user_with_a_history_once():
    assert sorted(collect(make("users"))["user_id"].tolist()) == (np.unique(DATA.train_users) + 1).tolist()


def test_a_user_who_has_everything_is_left_out_instead_of_looping():
    interactions = data().interactions
    object.__setattr__(interactions, "train_items", np.array([0, 1, 1, 0, 1, 2, 3, 4]))
    object.__setattr__(interactions, "train_indptr", np.array([0, 2, 3, 8, 8, 8]))  # user 2 has all that anyone has
    columns = collect(make("pairs", "train_items", interactions=interactions))
    assert 3 not in columns["user_id"].tolist() and len(columns["user_id"]) == 3
