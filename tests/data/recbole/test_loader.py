"""Every source through RecBole as host, and every kind of bad file in one line."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedvlr_plugin.data.catalogue import available, canonical_name, default_datasets
from fedvlr_plugin.data.interactions import leave_one_out
from fedvlr_plugin.data.recbole.loader import AnyModel, open_dataset, prepare
from fedvlr_plugin.errors import ConfigError, DataError, UnknownNameError

ROOT = Path(os.environ["FEDVLR_DATA"]) if "FEDVLR_DATA" in os.environ else None
needs_data = pytest.mark.skipif(ROOT is None, reason="FEDVLR_DATA names no data root with the real data sets")


def write_released(root, name="tiny", users=6, items=9, labels=True, seed=0):
    """A small folder in the released layout; returns it."""
    folder = root / name
    folder.mkdir()
    source = np.random.default_rng(seed)
    rows = [(u, int(i), 4.0, 100 + t) for u in range(users) for t, i in enumerate(source.permutation(items)[:6])]
    rows.append((0, items - 1, 1.0, 99))
    frame = pd.DataFrame(rows, columns=["userID", "itemID", "rating", "timestamp"])
    frame = frame.drop_duplicates(["userID", "itemID"])
    if labels:
        frame["split_label"] = leave_one_out(frame["userID"].to_numpy(), frame["timestamp"].to_numpy(float))
    frame.to_csv(folder / "inter.csv", index=False)
    np.save(folder / "image_features.npy", source.normal(size=(items, 4)).astype(np.float16))
    np.save(folder / "text_features.npy", source.normal(size=(items, 3)))
    return folder


def test_released_layout(tmp_path):
    folder = write_released(tmp_path)
    data = prepare("tiny", tmp_path)
    frame = pd.read_csv(folder / "inter.csv")
    interactions = data.interactions
    assert list(data.features) == ["vision", "text"]
    assert data.features["vision"].matrix.dtype == np.float32
    raw = np.load(folder / "text_features.npy")
    for item, token in enumerate(interactions.item_tokens):
        assert np.allclose(data.features["text"].matrix[item], raw[int(token)])
    for user, token in enumerate(interactions.user_tokens):
        mine = frame[frame["userID"] == int(token)]
        train = set(mine[mine["split_label"] == 0]["itemID"].astype(str))
        assert {interactions.item_tokens[i] for i in interactions.history(user)} == train
        (held,) = mine[mine["split_label"] == 2]["itemID"].astype(str)
        assert interactions.item_tokens[interactions.test[user]] == held


def test_labels_and_time_agree_when_labels_come_from_time(tmp_path):
    write_released(tmp_path, "labelled")
    write_released(tmp_path, "bare", labels=False)
    assert prepare("labelled", tmp_path).interactions.fingerprint == prepare("bare", tmp_path).interactions.fingerprint


def test_parts_of_recbole_agree_with_ours_and_build_twice(tmp_path):
    write_released(tmp_path)
    dataset = open_dataset("tiny", tmp_path)
    for _ in range(2):
        train, valid, test = dataset.build()
        interactions = dataset.prepared.interactions
        assert len(train) == len(interactions.train_items)
        for part, held in ((valid, interactions.valid), (test, interactions.test)):
            users = part.inter_feat["user_id"].numpy() - 1
            assert (held[users] == part.inter_feat["item_id"].numpy() - 1).all() and len(users) == (held >= 0).sum()
    assert train.prepared.fingerprint == dataset.prepared.fingerprint


def test_atomic_files_with_features_beside(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [f"u{u}\ti{(u + k) % 7}\t{k}" for u in range(4) for k in range(5)]
    rows += ["u9\ti0\t1", "u0\ti0\t9"]  # a user below the filter; a duplicate pair, later
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows) + "\n")
    matrix = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.save(folder / "image_features.npy", matrix)
    (folder / "image_features.tokens").write_text("\n".join(["i6", "i5", "i4", "i3", "i2", "i1"]) + "\n")
    data = open_dataset(
        "shop", tmp_path, AnyModel, {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    ).prepared
    assert data.interactions.n_users == 4 and "u9" not in data.interactions.user_tokens
    assert data.facts["duplicate_rows"] == 1 and data.interactions.n_interactions == 20
    vision = data.features["vision"]
    tokens = data.interactions.item_tokens
    assert vision.matrix[tokens.index("i6")].tolist() == [0.0, 1.0]
    assert vision.matrix[tokens.index("i0")].tolist() == matrix.mean(0).tolist()
    assert not vision.present[tokens.index("i0")]


def test_packaged_movielens():
    data = prepare("ml-100k")
    assert (data.interactions.n_users, data.interactions.n_items, data.interactions.n_interactions) == (
        943,
        1682,
        100_000,
    )
    assert {m.name: m.matrix.shape for m in data.features.values()} == {"text": (1682, 64), "genres": (1682, 19)}
    story = data.interactions.item_tokens.index("1")
    assert data.features["genres"].matrix[story].sum() == 3
    twins = [data.interactions.item_tokens.index(t) for t in ("1", "1")]
    assert np.allclose(*data.features["text"].matrix[twins])


@needs_data
@pytest.mark.parametrize(
    "name, sizes", [("ku", (204, 560, 3484)), ("ml", (610, 3650, 90_274)), ("beauty", (253, 356, 2535))]
)
def test_real_sets_have_the_sizes_of_table_1(name, sizes):
    interactions = prepare(name, ROOT).interactions
    assert (interactions.n_users, interactions.n_items, interactions.n_interactions) == sizes


@needs_data
def test_ku_facts_and_its_shipped_split_is_leave_one_out_in_time():
    data = prepare("ku", ROOT)
    interactions = data.interactions
    assert data.facts["duplicate_rows"] == 5 and interactions.cold_items.sum() == 16
    assert interactions.cold_items[interactions.test].sum() == 88
    assert interactions.cold_items[interactions.valid].sum() == 46
    frame = pd.read_csv(ROOT / "ku" / "inter.csv", sep=None, engine="python")
    frame = frame.drop_duplicates(["userID", "itemID"])
    label = next(c for c in frame.columns if "label" in c)
    made = leave_one_out(frame["userID"].to_numpy(), frame["timestamp"].to_numpy(float))
    assert (made == frame[label].to_numpy()).all()


def break_file(folder, how):
    inter = folder / "inter.csv"
    frame = pd.read_csv(inter)
    if how == "columns":
        frame.drop(columns="timestamp").to_csv(inter, index=False)
    elif how == "empty":
        inter.write_text("")
    elif how == "no rows":
        frame.head(0).to_csv(inter, index=False)
    elif how == "ids":
        frame.astype({"itemID": object}).assign(itemID=["x", *frame["itemID"][1:]]).to_csv(inter, index=False)
    elif how == "labels":
        frame.assign(split_label=7).to_csv(inter, index=False)
    elif how == "nobody":
        frame.groupby("userID").head(2).drop(columns="split_label").to_csv(inter, index=False)
    elif how == "time":
        frame.astype({"timestamp": object}).assign(timestamp=["soon", *frame["timestamp"][1:]]).to_csv(
            inter, index=False
        )
    elif how == "rows":
        np.save(folder / "text_features.npy", np.zeros((5, 3)))
    elif how == "nan":
        np.save(folder / "text_features.npy", np.full((9, 3), np.nan))
    elif how == "shape":
        np.save(folder / "text_features.npy", np.zeros(9))
    elif how == "bytes":
        (folder / "text_features.npy").write_bytes(b"nothing")
    elif how == "pickle":
        np.save(folder / "text_features.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "how, message",
    [
        ("columns", "lacks the column.*timestamp.*needed are userID, itemID, timestamp"),
        ("empty", "cannot be read as a table"),
        ("no rows", "has no rows"),
        ("ids", "line 2: the itemID is 'x'; whole numbers"),
        ("labels", "split labels must be 0, 1 or 2, got \\[7\\]"),
        ("nobody", "no user is left after the filter; the most active of 6 has 2 distinct items, 5 are needed"),
        ("time", "line 2: the timestamp is .*; a finite number is needed"),
        ("rows", "has 5 rows, but inter.csv has itemIDs 0..8.*9 rows are needed"),
        ("nan", "NaN|not finite|non-finite"),
        ("shape", "must be a numeric matrix"),
        ("bytes", "cannot be read as a numpy array"),
        ("pickle", "cannot be read as a numpy array"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path, how, message):
    break_file(write_released(tmp_path, how.replace(" ", "-")), how)
    with pytest.raises(DataError, match=message) as caught:
        prepare(how.replace(" ", "-"), tmp_path)
    assert "\n" not in str(caught.value)


def test_names_and_roots(tmp_path, monkeypatch):
    write_released(tmp_path, "tiny")
    assert available(tmp_path) == ["tiny", "ml-100k", "planted"]
    assert default_datasets(tmp_path) == ["tiny", "ml-100k"]
    assert canonical_name("TINY", tmp_path) == "tiny"
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny'"):
        prepare("tyni", tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        prepare("tiny", tmp_path / "nowhere")
    monkeypatch.setenv("FEDVLR_DATA", str(tmp_path))
    assert "tiny" in available()


def test_only_leave_one_out_is_accepted(tmp_path):
    write_released(tmp_path)
    with pytest.raises(ConfigError, match="splits leave-one-out in time"):
        open_dataset("tiny", tmp_path, config_dict={"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO"}})
