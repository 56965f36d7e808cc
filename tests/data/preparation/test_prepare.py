"""Raw files to atomic files: counts by hand, Table 1 on the real ones, the released layout there and back."""

import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvlr_plugin.data.preparation.convert import export_released, import_released, read_titles
from fedvlr_plugin.data.preparation.prepare import NO_TITLE, prepare_raw
from fedvlr_plugin.data.preparation.publishers import Amazon, MovieLens, NineRec, k_core
from fedvlr_plugin.data.preparation.recipes import RECIPES
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.released_layout import feature_label, values_hash
from fedvlr_plugin.data.statistics import differences, statistics, table1
from fedvlr_plugin.errors import DataError, UnknownNameError

ROOT = Path(os.environ["FEDVLR_DATA"]) if "FEDVLR_DATA" in os.environ else None
needs_data = pytest.mark.skipif(ROOT is None, reason="FEDVLR_DATA names no data root with the real data sets")


def write_ninerec(folder: Path) -> None:
    """6 users x 6 items in full, a seventh user with 4 items, an item of one user, one repeated pair."""
    rows = [(i, u, 100 * u + k) for u in range(6) for k, i in enumerate(range(6))]
    rows += [(i, 6, i) for i in range(4)] + [(9, 0, 5), (0, 0, 999)]
    folder.mkdir(parents=True)
    (folder / "KU_pair.csv").write_text("".join(f"{i},{u},{t}\n" for i, u, t in rows))
    (folder / "KU_item.csv").write_text(
        '0,中文,A "quoted", title\n1,只有中文,\n2,,\n7,x,y\n'.replace('A "quoted", title', '"A ""quoted"", title"')
    )


def test_ninerec_by_hand(tmp_path):
    write_ninerec(tmp_path / "raw")
    manifest = prepare_raw("KU", tmp_path / "raw", tmp_path / "out")
    assert manifest["before"] == {"users": 7, "items": 7, "interactions": 42}
    assert [step["interactions"] for step in manifest["filters"]] == [41, 36]
    assert manifest["after"] == {"users": 6, "items": 6, "interactions": 36} and manifest["titles"] == 2
    assert manifest["differs_from_table_1"][0] == "users: Table 1 has 204, here 6 (-198)"
    assert json.loads((tmp_path / "out/ku/manifest.json").read_text()) == manifest
    data = prepare("ku", tmp_path / "out")
    assert data.interactions.n_interactions == 36 and data.facts["duplicate_rows"] == 0
    token = data.interactions.item_tokens
    assert {token[i] for i in data.interactions.test} == {"5"} and {token[i] for i in data.interactions.valid} == {"4"}
    assert read_titles(tmp_path / "out/ku") == {"0": 'A "quoted", title', "1": "只有中文"}
    assert NO_TITLE in (tmp_path / "out/ku/ku.item").read_text()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60, unique=True), st.integers(1, 4))
def test_k_core_is_the_largest_part_with_k_of_each(pairs, k):
    rows = pd.DataFrame(pairs, columns=["user", "item"])
    kept = k_core(rows, k)
    for column in ("user", "item"):
        assert kept.groupby(column).size().min() >= k if len(kept) else True
    left = list(pairs)  # the slow way: drop one offender at a time
    while True:
        bad = [p for p in left if sum(q[0] == p[0] for q in left) < k or sum(q[1] == p[1] for q in left) < k]
        if not bad:
            break
        left.remove(bad[0])
    assert list(map(tuple, kept.to_numpy().tolist())) == left


def test_amazon_jsonl_gzip_titles_and_images(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [f"u{u},B{i},5.0,{1000 + i}" for u in range(5) for i in range(5)]
    with gzip.open(raw / "Gift_Cards.csv.gz", "wt") as file:
        file.write("user_id,parent_asin,rating,timestamp\n" + "\n".join(lines) + "\n")
    entries = [
        {
            "parent_asin": "B0",
            "title": " A\ttitle \n",
            "images": [{"variant": "PT01", "hi_res": "back"}, {"variant": "MAIN", "large": "l", "hi_res": None}],
        },
        {"parent_asin": "B1", "title": None, "images": []},
        {"parent_asin": "X", "title": "of no item", "images": [{"hi_res": "h"}]},
    ]
    (raw / "meta_Gift_Cards.jsonl").write_text("\n".join(map(json.dumps, entries)))
    read = Amazon("Gift_Cards").read(raw)
    assert read.titles == {"B0": "A title"} and read.image_urls == {"B0": "l"}
    manifest = prepare_raw("cards", raw, tmp_path / "out")
    assert manifest["titles"] == 1 and manifest["image_urls"] == 1
    assert (tmp_path / "out/cards/image_urls.csv").read_text() == "item_id,url\nB0,l\n"
    assert "1000\n" in (tmp_path / "out/cards/cards.inter").read_text()


@pytest.mark.parametrize("write", [repr, json.dumps, lambda images: images[0]["large"]])
def test_amazon_csv_titles_and_images(tmp_path, write):
    """A csv holds the list of images as text, Python's or JSON's, or one address."""
    (tmp_path / "Gift_Cards.csv").write_text("user_id,parent_asin,rating,timestamp\nu,0594,5.0,1\nu,B1,5.0,2\n")
    images = [{"variant": "MAIN", "large": "https://m/l", "hi_res": None}]
    frame = pd.DataFrame({"parent_asin": ["0594", "B1"], "title": ["A", "B"], "images": [write(images), "[oops"]})
    frame.to_csv(tmp_path / "meta_Gift_Cards.csv", index=False)
    read = Amazon("Gift_Cards").read(tmp_path)
    assert read.image_urls == {"0594": "https://m/l"} and read.titles == {"0594": "A", "B1": "B"}


def test_a_damaged_line_of_the_metadata_is_named(tmp_path):
    (tmp_path / "Gift_Cards.csv").write_text("user_id,parent_asin,rating,timestamp\nu,B1,5.0,2\n")
    (tmp_path / "meta_Gift_Cards.jsonl").write_text('{"parent_asin": "B1", "title": "A"}\n\n{"parent_asin": "B2", "ti')
    with pytest.raises(DataError, match="'meta_Gift_Cards.jsonl' cannot be read as a table: line 3 is no JSON"):
        Amazon("Gift_Cards").read(tmp_path)


def test_ninerec_titles_with_a_tab_or_a_further_column(tmp_path):
    (tmp_path / "KU_pair.csv").write_text("0,u,1\n1,u,2\n")
    (tmp_path / "KU_item.csv").write_text("0,with\ttab,first,more\n1,x,second,more\n")
    assert NineRec("KU").read(tmp_path).titles == {"0": "first", "1": "second"}


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_damaged_archive_is_one_line_that_says_to_delete_it(tmp_path, kind):
    text = "userId,movieId,rating,timestamp\n" + "".join(f"{k % 50},{k * 7 % 300},4.0,{k}\n" for k in range(3000))
    file = tmp_path / {"zip": "ml.zip", "gz": "ratings.csv.gz"}[kind]
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ratings.csv", text)
    else:
        file.write_bytes(gzip.compress(text.encode()))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,a,b\n")
    whole = file.read_bytes()
    for where in range(60, len(whole) - 120, len(whole) // 40):
        file.write_bytes(whole[:where] + bytes([whole[where] ^ 0x55]) + whole[where + 1 :])
        with pytest.raises(
            DataError, match=f"'{file.name}' is damaged .*delete it and fetch|cannot be read as a table"
        ):
            MovieLens().read(tmp_path)


def test_movielens_from_a_zip(tmp_path):
    ratings = "userId,movieId,rating,timestamp\n" + "".join(
        f"{u},{m},3.5,{m}\n" for u in range(6) for m in range(1, 6 + (u == 0))
    )
    with zipfile.ZipFile(tmp_path / "ml-latest-small.zip", "w") as archive:
        archive.writestr("ml-latest-small/ratings.csv", ratings)
        archive.writestr(
            "ml-latest-small/movies.csv", "movieId,title,genres\n1,One (1999),Drama|War\n2,Two,(no genres listed)\n"
        )
    read = MovieLens().read(tmp_path)
    assert read.files[0].name == "ml-latest-small.zip:ml-latest-small/ratings.csv"
    assert read.classes == {"1": "Drama War"}
    assert [len(rows) for _, rows in MovieLens().filter(read.rows)] == [31, 30, 30]


@needs_data
@pytest.mark.parametrize("name, folder", [("ml", "movielens"), ("beauty", "amazon-2023")])
def test_raw_files_give_table_1_exactly(tmp_path, name, folder):
    manifest = prepare_raw(name, ROOT / "raw" / folder, tmp_path)
    paper = table1()[name]
    assert manifest["after"] == {"users": paper.users, "items": paper.items, "interactions": paper.interactions}
    assert manifest["differs_from_table_1"] == []
    assert differences(statistics(prepare(name, tmp_path))) == []


@needs_data
@pytest.mark.parametrize("name", ["ku", "beauty"])
def test_released_layout_there_and_back_without_loss(tmp_path, name):
    atomic = import_released(ROOT / name, tmp_path / "atomic")
    assert prepare(name, tmp_path / "atomic").fingerprint == prepare(name, ROOT).fingerprint
    back = export_released(atomic, tmp_path / "back")
    for file in (ROOT / name).iterdir():
        assert (back / file.name).read_bytes() == file.read_bytes(), file.name


def labelled_features(folder, matrix, tokens=None, sha256=None):
    """A text matrix with a manifest beside it, as `data features` writes them; its label is an encoder's."""
    np.save(folder / "text_features.npy", matrix)
    if tokens:
        (folder / "text_features.tokens").write_text("\n".join(tokens) + "\n")
    manifest = {"label": "some encoder", "items": len(matrix), "sha256_of_values": sha256 or values_hash(matrix)}
    (folder / "text_features.json").write_text(json.dumps(manifest))


def test_manifests_of_features_come_along(tmp_path):
    folder = tmp_path / "there/made"
    folder.mkdir(parents=True)
    rows = [f"{user},{item},1,{100 * user + item}" for user in range(6) for item in range(9) if item != user]
    (folder / "inter.csv").write_text("\n".join(["userID,itemID,rating,timestamp", *rows]) + "\n")
    labelled_features(folder, np.arange(27, dtype=np.float16).reshape(9, 3))
    atomic = import_released(folder, tmp_path / "atomic")
    assert prepare("made", tmp_path / "atomic").features["text"].source == "some encoder"
    back = export_released(atomic, tmp_path / "back")
    assert (back / "text_features.json").read_bytes() == (folder / "text_features.json").read_bytes()
    assert prepare("made", tmp_path / "back").features["text"].source == "some encoder"


@pytest.mark.parametrize("fits", [True, False])
def test_rows_that_move_keep_their_label_only_if_it_was_theirs(tmp_path, fits):
    write_ninerec(tmp_path / "raw")
    prepare_raw("ku", tmp_path / "raw", tmp_path / "out")
    matrix = np.arange(6, dtype=np.float16)[:, None]
    labelled_features(tmp_path / "out/ku", matrix, list("543210"), None if fits else "0" * 64)
    back = export_released(tmp_path / "out/ku", tmp_path / "back")
    assert np.load(back / "text_features.npy")[:, 0].tolist() == [5, 4, 3, 2, 1, 0]
    label = feature_label(back / "text_features.npy")
    assert label == "some encoder" if fits else "belongs to other values" in label


def test_export_numbers_other_tokens_and_splits(tmp_path):
    write_ninerec(tmp_path / "raw")
    prepare_raw("ku", tmp_path / "raw", tmp_path / "out")
    folder = tmp_path / "out/ku"
    text = (folder / "ku.inter").read_text().splitlines()
    (folder / "ku.inter").write_text(
        "\n".join([text[0], *(f"u{a}\tv{line}" for a, line in (r.split("\t", 1) for r in text[1:]))])
    )
    np.save(folder / "text_features.npy", np.arange(6, dtype=np.float16)[:, None])
    (folder / "text_features.tokens").write_text("v5\nv4\nv3\nv2\nv1\nv0\n")
    back = export_released(folder, tmp_path / "back")
    frame = pd.read_csv(back / "inter.csv")
    assert frame["split_label"].value_counts().to_dict() == {0: 24, 1: 6, 2: 6}
    assert np.load(back / "text_features.npy")[:, 0].tolist() == [5, 4, 3, 2, 1, 0]
    assert pd.read_csv(back / "items.csv")["item"].tolist() == [f"v{i}" for i in range(6)]
    assert np.load(back / "text_features.npy").dtype == np.float16


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    raw = tmp_path / "raw"
    with pytest.raises(UnknownNameError, match="unknown recipe 'beuty'.*Did you mean 'beauty'"):
        prepare_raw("beuty", raw, tmp_path)
    with pytest.raises(DataError, match="is not there; name the folder"):
        prepare_raw("ku", raw, tmp_path / "out")
    raw.mkdir()
    with pytest.raises(
        DataError, match="no KU_pair.csv .plain, .gz or in a zip. under .*get it from https://github.com"
    ):
        prepare_raw("ku", raw, tmp_path / "out")
    (raw / "ratings.csv").write_text("user,movieId\n1,2\n")
    (raw / "movies.csv").write_text("movieId,title,genres\n")
    with pytest.raises(
        DataError, match="'ratings.csv' lacks the column.*userId, rating, timestamp; it has user, movieId"
    ):
        prepare_raw("ml", raw, tmp_path / "out")
    (raw / "KU_pair.csv").write_text("1,2,3\n1,3,later\n")
    with pytest.raises(DataError, match="line 2: the timestamp is 'later'; a finite number is needed"):
        prepare_raw("ku", raw, tmp_path / "out")
    (raw / "KU_pair.csv").write_text("1,2,3\n1,3,4\n")
    with pytest.raises(DataError, match="nothing is left after 'iterative 5-core.*' of 2 rows"):
        prepare_raw("ku", raw, tmp_path / "out")
    (raw / "KU_pair.csv").write_text("")
    with pytest.raises(DataError, match=".KU_pair.csv. has no rows"):
        prepare_raw("ku", raw, tmp_path / "out")
    (raw / "a.zip").write_bytes(b"PK not really")
    with pytest.raises(DataError, match="'a.zip' is no readable zip"):
        prepare_raw("beauty", raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_table_of_titles_is_one_line(tmp_path):
    (tmp_path / "ku.item").write_text('item_id:token\ttitle:token_seq\n1\ta\tb\tc\n2\t"open\n')
    folder = tmp_path.rename(tmp_path.with_name("ku"))
    with pytest.raises(DataError, match=r"'ku/ku.item', line 2 has 4 field\(s\), the heading has 2"):
        read_titles(folder)


def test_nothing_is_overwritten_unasked_and_features_stay(tmp_path):
    write_ninerec(tmp_path / "raw")
    first = prepare_raw("ku", tmp_path / "raw", tmp_path / "out")
    (tmp_path / "out/ku/text_features.npy").write_bytes(b"kept")
    assert prepare_raw("ku", tmp_path / "raw", tmp_path / "out") == first  # its own work, finished: nothing is done
    lines = (tmp_path / "raw").rglob("*_pair.csv")
    pairs = next(iter(lines))
    pairs.write_text(pairs.read_text() + pairs.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="is there already, made of other files .*replace it with --overwrite"):
        prepare_raw("ku", tmp_path / "raw", tmp_path / "out")
    prepare_raw("ku", tmp_path / "raw", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/ku/text_features.npy").read_bytes() == b"kept"
    (tmp_path / "out/ml").mkdir()
    (tmp_path / "out/ml/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="it was not made by this command"):
        prepare_raw("ml", tmp_path / "raw", tmp_path / "out", overwrite=True)


def test_every_set_of_table_1_has_a_recipe():
    assert set(RECIPES) == set(table1())
    assert isinstance(RECIPES["movie"].publisher, NineRec) and RECIPES["movie"].publisher.stem == "Bili_Movie"
