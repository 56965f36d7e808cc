"""Tables of any content written and read back: the same users, items, times and titles, or one line that refuses."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.preparation.convert import export_released, import_released
from fedvlr_plugin.data.preparation.prepare import prepare_raw, write_table
from fedvlr_plugin.data.reading.items import read_titles
from fedvlr_plugin.data.reading.titles import clean_title
from fedvlr_plugin.data.recbole.loader import open_dataset
from fedvlr_plugin.data.released_layout import ReleasedSource
from fedvlr_plugin.features.encode import encode_dataset

BULK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
USERS, ITEMS, EACH = 4, 8, 6
PLAIN = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff")
TRAPS = [
    "null", "NA", "nan", "None", "N/A", "", "inf", "1e5", "007", "7", "7.0", "-1", "1" * 21, "9007199254740993", "True",
    '"', '""', '"""', '"a""b"', '"open', 'close"', "a,b", " a", "a ", "café", "cafe\u0301", "\u2028", "=1+1", "[PAD]", "user_id",
    "&amp;", "&amp;amp;", "&lt", "#", "\\N", "\x85", "#N/A", "<NA>",
]  # fmt: skip
TOKEN = st.one_of(st.sampled_from([t for t in TRAPS if t]), st.text(PLAIN, min_size=1, max_size=6))
TITLE = st.one_of(st.sampled_from(TRAPS), st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
TIME = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(10**18, 10**18 + 50), st.integers(0, 3))


@st.composite
def shops(draw):
    """Rows (user, item, time) in file order, and item to title."""
    users = draw(st.lists(TOKEN, min_size=USERS, max_size=USERS, unique=True))
    items = draw(st.lists(TOKEN, min_size=ITEMS, max_size=ITEMS, unique=True))
    rows = [(user, items[(a + k) % ITEMS], draw(TIME)) for a, user in enumerate(users) for k in range(EACH)]
    return rows, {item: draw(TITLE) for item in items}


def by_hand(rows):
    """User to (training items, validation item, test item): sorted by exact time, ties in file order."""
    out = {}
    for user in dict.fromkeys(user for user, _, _ in rows):
        mine = [item for _, item, _ in sorted((r for r in rows if r[0] == user), key=lambda r: r[2])]
        out[user] = (frozenset(mine[:-2]), mine[-2], mine[-1])
    return out


def as_opened(name, root):
    """The same from what RecBole's data set holds."""
    inter = open_dataset(name, root).prepared.interactions
    token = inter.item_tokens
    return {
        user: (frozenset(token[i] for i in inter.history(k)), token[inter.valid[k]], token[inter.test[k]])
        for k, user in enumerate(inter.user_tokens)
    }


def write_atomic_files(root, rows, titles):
    folder = root / "shop"
    folder.mkdir(parents=True)
    heading = "user_id:token\titem_id:token\ttimestamp:float\n"
    text = heading + "".join(f"{user}\t{item}\t{time}\n" for user, item, time in rows)
    (folder / "shop.inter").write_bytes(text.encode())
    described = {"item_id:token": list(titles), "title:token_seq": [clean_title(t) for t in titles.values()]}
    (folder / "shop.item").write_bytes(write_table(pd.DataFrame(described, dtype=object)))
    return folder


def not_quoted_by_a_csv_writer(rows):
    """A token like `"a""b"` is what a csv writer makes of `a"b`; the reader takes it so (see `reading.tables`)."""
    return not any('""' in token[1:-1] and token[:1] == token[-1:] == '"' for row in rows for token in row[:2])


@BULK
@given(shops())
@example(([(u, f"i{(a + k) % 8}", 10**18 + k // 2) for a, u in enumerate(TRAPS[:4]) for k in range(6)], {"i0": '"'}))
def test_atomic_files_through_info_export_import_and_back(shop):
    rows, titles = shop
    assume(not_quoted_by_a_csv_writer(rows))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = write_atomic_files(root / "a", rows, titles)
        assert as_opened("shop", root / "a") == by_hand(rows)
        assert AtomicSource("shop", folder).interactions()["timestamp"].tolist() == [time for _, _, time in rows]
        cleaned = {item: text for item, title in titles.items() if (text := clean_title(title))}
        assert read_titles(folder) == cleaned

        released = export_released(folder, root / "b")
        frame = ReleasedSource("shop", released).interactions()
        assert frame["timestamp"].tolist() == [time for _, _, time in rows]
        token = {str(number): str(number) for number in range(ITEMS)}
        if (released / "items.csv").is_file():
            with (released / "items.csv").open(encoding="utf-8", newline="") as stream:
                lines = list(csv.DictReader(stream))
            token = {line["itemID"]: line["item"] for line in lines}
            seen = {item for _, item, _ in rows}
            assert {token[n]: t for n, t in read_titles(released).items()} == {
                i: t for i, t in cleaned.items() if i in seen
            }
        assert [token[number] for number in frame["item"]] == [item for _, item, _ in rows]
        opened = as_opened("shop", root / "b")
        told = [(frozenset(token[i] for i in train), token[v], token[t]) for train, v, t in opened.values()]
        assert told == list(by_hand(rows).values())

        again = import_released(released, root / "c")
        assert as_opened("shop", root / "c") == opened
        assert read_titles(again) == read_titles(released)
        back = export_released(again, root / "d")
        assert (back / "inter.csv").read_bytes() == (released / "inter.csv").read_bytes()


@BULK
@given(shops(), st.sampled_from(["csv", "jsonl"]))
def test_raw_files_through_prepare(shop, kind):
    rows, titles = shop
    with tempfile.TemporaryDirectory() as place:
        raw, out = Path(place) / "raw", Path(place) / "out"
        raw.mkdir()
        write_csv(
            raw / "All_Beauty.csv",
            ["user_id", "parent_asin", "rating", "timestamp"],
            [(u, i, "5.0", t) for u, i, t in rows],
        )
        if kind == "jsonl":
            lines = [json.dumps({"parent_asin": item, "title": title}) for item, title in titles.items()]
            (raw / "meta_All_Beauty.jsonl").write_text("\n".join(lines), encoding="utf-8")
        else:
            one_line = {item: " ".join(title.split()).replace("\0", "") for item, title in titles.items()}
            write_csv(raw / "meta_All_Beauty.csv", ["parent_asin", "title"], one_line.items())
        prepare_raw("beauty", raw, out)
        assert as_opened("beauty", out) == by_hand(rows)
        frame = AtomicSource("beauty", out / "beauty").interactions()
        assert list(frame.itertuples(index=False, name=None)) == [(u, i, 5.0, t) for u, i, t in rows]
        seen = {item for _, item, _ in rows}
        assert read_titles(out / "beauty") == {i: t for i in titles if i in seen and (t := clean_title(titles[i]))}


def write_csv(path, heading, rows):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(heading)
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode())


@settings(BULK, max_examples=6)
@given(shops())
def test_features_belong_to_the_items_that_were_encoded(shop):
    rows, titles = shop
    assume(not_quoted_by_a_csv_writer(rows) and any(any(c.isalpha() for c in clean_title(t)) for t in titles.values()))
    titles = {item: f"word{k} {title}" for k, (item, title) in enumerate(titles.items())}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = write_atomic_files(root, rows, titles)
        list(encode_dataset("shop", ["text"], "tfidf", {}, data_root=root))
        (features,) = AtomicSource("shop", folder).features()
        assert set(features.tokens) == {item for _, item, _ in rows}
        data = open_dataset("shop", root).prepared
        place_of = {token: k for k, token in enumerate(features.tokens)}
        for k, token in enumerate(data.interactions.item_tokens):
            assert np.array_equal(data.features["text"].matrix[k], features.matrix[place_of[token]])
        assert data.features["text"].present.all()


@BULK
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\ufeff")), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_a_csv_writer_wrote_is_read_back_or_refused(rows):
    """Only fields over several lines that look like rows may be refused."""
    from fedvlr_plugin.data.reading.tables import parse_table
    from fedvlr_plugin.errors import DataError

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([["a", "b", "c"], *rows])
    text = buffer.getvalue().replace("\r\n", "\n").replace("\r", "\n")
    try:
        table = parse_table(text, "t.csv")
    except DataError as error:
        assert "lone quote" in str(error) and any("\n" in cell or "\r" in cell for row in rows for cell in row)
        return
    wanted = [[cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in rows]
    assert [list(row) for row in zip(table["a"], table["b"], table["c"], strict=True)] == wanted
