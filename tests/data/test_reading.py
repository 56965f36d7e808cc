"""The one reader of users' files: every kind of odd file is read right, or refused in one line that names the line."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.catalogue import available, canonical_name, find_source
from fedvlr_plugin.data.preparation.convert import export_released, import_released
from fedvlr_plugin.data.preparation.prepare import prepare_raw
from fedvlr_plugin.data.preparation.publishers import image_url
from fedvlr_plugin.data.preparation.raw_files import find
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.encodings import decode_text
from fedvlr_plugin.data.reading.items import read_titles
from fedvlr_plugin.data.reading.tables import parse_table
from fedvlr_plugin.data.reading.titles import clean_title
from fedvlr_plugin.data.recbole.loader import AnyModel, open_dataset, prepare
from fedvlr_plugin.data.tfidf import tfidf_svd
from fedvlr_plugin.errors import DataError, FedVLRError, UnknownNameError
from fedvlr_plugin.features.encode import items_of
from fedvlr_plugin.features.extraction import prompts

HEAD = "user_id:token\titem_id:token\ttimestamp:float\n"
HOLDS = "userID,itemID,timestamp\n"


def rows(users=None, items=None):
    users, items = users or [f"u{k}" for k in range(6)], items or [f"i{k}" for k in range(9)]
    return [(u, items[(a + k) % len(items)], str(100 * a + k)) for a, u in enumerate(users) for k in range(6)]


def text(found, head=HEAD, separator="\t"):
    return head + "".join(separator.join(row) + "\n" for row in found)


def shop(root, content, name="shop"):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / f"{name}.inter").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def released(root, content, name="shop"):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "inter.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def numbered(form="{}", item="{}", time="{}"):
    return HOLDS + "".join(
        f"{form.format(u)},{item.format((u + k) % 9)},{time.format(100 * u + k)}\n" for u in range(6) for k in range(6)
    )


def sizes(root, name="shop"):
    inter = prepare(name, root).interactions
    return inter.n_users, inter.n_items, inter.n_interactions


def refused(call, *words):
    with pytest.raises(FedVLRError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


# --- quotes and field counts -------------------------------------------------------------------------------------


def test_quotes_in_titles_of_atomic_files_are_characters(tmp_path):
    folder = shop(tmp_path, text(rows()))
    titles = ["Lamp", '"Green" chair', '"Two-part set', "Desk", '"Rug"', "Vase", 'Shelf 30"', '"', '""']
    (folder / "shop.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\t{title}\n" for k, title in enumerate(titles))
    )
    assert read_titles(folder) == {f"i{k}": title for k, title in enumerate(titles)}


def test_what_a_csv_writer_made_of_quotes_is_undone_in_tab_separated_files(tmp_path):
    folder = shop(tmp_path, text(rows()))
    titles = ['A "quoted", title', '"Green" chair', "plain", '"']
    frame = pd.DataFrame({"item_id:token": [f"i{k}" for k in range(4)], "title:token_seq": titles})
    frame.to_csv(folder / "shop.item", sep="\t", index=False)
    assert list(read_titles(folder).values()) == titles
    frame.to_csv(folder / "shop.item", sep="\t", index=False, quoting=1)  # everything in quotes, the heading too
    assert list(read_titles(folder).values()) == titles


@pytest.mark.parametrize(
    "content, said",
    [
        ('a,b\n1,"x\n2,y"\n3,z\n', "line 2: a quote that is closed only in line 3 would make one field of whole lines"),
        ('a,b\n1,"x\n2,y\n', "line 2: a quote is opened and never closed"),
        ('a,b\n1,"x" y\n', "line 2: text after a closing quote"),
        ("a,b\n1,x\n2,y,z\n", "line 3 has 3 field(s), the heading has 2; a field that holds a comma"),
        ("a,b\n\n1,x,\n", "line 3 has 3 field(s), the heading has 2; a separator too many at its end"),
        (
            "a\tb\n1\tx\n2;y\n",
            "line 3 has 1 field(s), the heading has 2; its fields seem to be separated by semicolons",
        ),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("", "cannot be read as a table: it is empty"),
    ],
)
def test_the_first_bad_line_of_a_table_is_named(content, said):
    refused(lambda: parse_table(content, "t.csv"), said)


def test_long_fields_of_csv_are_read_whole():
    table = parse_table('a,b\n1,"one\ntwo, ""three"""\n2,' + "x" * 200_000 + "\n", "t.csv")
    assert table["b"] == ['one\ntwo, "three"', "x" * 200_000] and table.lines == [2, 4]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t + "u0\ti8\t5\tnote\n", "line 38 has 4 field(s)"),
        (lambda t: t + "u0\ti8\t\n", "line 38: the timestamp is missing"),
        (lambda t: t.replace("\t3\n", "\t2021-01-05\n", 1), "line 5: the timestamp is '2021-01-05', a date"),
        (lambda t: HEAD + "".join(f"{line}\t\n" for line in t.splitlines()[1:]), "a separator too many at its end"),
        (lambda t: t.replace("\tu0\t", "\t").replace("u0\ti1", "\ti1", 1), "line 3: the user_id is empty"),
        (lambda t: t.replace("\t3\n", "\tinf\n", 1), "line 5: the timestamp is 'inf'; a finite number is needed"),
        (lambda t: t.replace("\t3\n", "\tnan\n", 1), "line 5: the timestamp is 'nan'"),
        (lambda t: t.replace("\t3\n", "\t1e999\n", 1), "line 5: the timestamp is '1e999'"),
        (lambda t: t.replace("\t3\n", "\t1_000\n", 1), "line 5: the timestamp is '1_000'"),
        (lambda t: t.replace("\t3\n", "\t٣\n", 1), "line 5: the timestamp is"),
        (lambda t: t.replace("i3", "i\x003", 1), "a NUL byte"),
        (lambda t: t.replace("u1\ti3", "\ufeffu1\ti3", 1), "a byte order mark (BOM) at the beginning of the line"),
    ],
)
def test_info_export_and_features_refuse_the_same_line(tmp_path, change, said):
    folder = shop(tmp_path, change(text(rows())))
    for call in (
        lambda: prepare("shop", tmp_path),
        lambda: export_released(folder, tmp_path / "out"),
        lambda: items_of("shop", tmp_path),
    ):
        refused(call, said)


def test_rating_and_label_of_any_type_are_numbers_or_refused(tmp_path):
    head = HEAD.rstrip("\n") + "\trating:token\tsplit_label:token\n"
    labels = (2, 1, 0, 0, 0, 0)  # the user's own split: the first row is the test item
    good = [(*row, "4.5", str(labels[k % 6])) for k, row in enumerate(rows())]
    folder = shop(tmp_path, text(good, head))
    inter = prepare("shop", tmp_path).interactions
    assert [inter.item_tokens[i] for i in inter.test] == [f"i{u}" for u in range(6)]
    line = (export_released(folder, tmp_path / "out") / "inter.csv").read_text().splitlines()[1]
    assert line == "0,0,4.5,0,2"
    for k, (words, said) in enumerate(
        (
            (("test", "valid", "train"), "got ['test', 'valid', 'train']"),
            (("7", "1", "0"), "got [7]"),
            (("0.5", "", "0"), "['0.5', '']"),
        )
    ):
        bad = [(*row, "4.5", words[2 - labels[i % 6]]) for i, row in enumerate(rows())]
        folder = shop(tmp_path / str(k), text(bad, head))
        for call in (
            lambda k=k: prepare("shop", tmp_path / str(k)),
            lambda f=folder: export_released(f, tmp_path / "o"),
        ):
            refused(call, "line 2: split labels must be 0, 1 or 2", said)


def test_both_names_of_the_label(tmp_path):
    lines = numbered().splitlines()
    same = [f"{line},{max(0, k % 6 - 3)},{max(0, k % 6 - 3)}.0" for k, line in enumerate(lines[1:])]
    released(tmp_path, "\n".join([lines[0] + ",x_label,split_label", *same]) + "\n")
    assert sizes(tmp_path) == (6, 9, 36)
    other = [same[0].replace(",0,0.0", ",0,1"), *same[1:]]
    released(tmp_path / "b", "\n".join([lines[0] + ",x_label,split_label", *other]) + "\n")
    refused(lambda: prepare("shop", tmp_path / "b"), "line 2: x_label is 0 and split_label 1; keep one")


# --- words, marks, separators, encodings -------------------------------------------------------------------------


def test_no_word_is_a_missing_token_for_recbole_either(tmp_path):
    users, items = (
        ["ada", "null", "None", "nan", "NaN", "<NA>"],
        ["i0", "NA", "N/A", "", *(f"i{k}" for k in range(4, 9))],
    )
    items[3] = "#N/A"
    content = text([(*row, "NULL") for row in rows(users, items)], HEAD.rstrip("\n") + "\tshop:token\n")
    folder = shop(tmp_path, content)
    (folder / "shop.user").write_text(
        "user_id:token\tname:token\tage:float\n" + "".join(f"{u}\tnull\t\n" for u in users)
    )
    dataset = open_dataset("shop", tmp_path, AnyModel, {"load_col": {"inter": "*", "user": "*"}})
    assert sorted(dataset.field2id_token["user_id"][1:]) == sorted(users)
    assert sorted(dataset.field2id_token["item_id"][1:]) == sorted(items)
    assert list(dataset.field2id_token["shop"]) == ["[PAD]", "NULL"] and list(dataset.field2id_token["name"][1:]) == [
        "null"
    ]
    assert items_of("shop", tmp_path)[1] == tuple(dict.fromkeys(i for _, i, _ in rows(users, items)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_line_end_are_taken(tmp_path, end):
    shop(tmp_path, b"\xef\xbb\xbf" + text(rows()).replace("\n", end).encode())
    released(tmp_path, b"\xef\xbb\xbf" + numbered().replace("\n", end).encode(), "other")
    assert sizes(tmp_path) == sizes(tmp_path, "other") == (6, 9, 36)


@pytest.mark.parametrize(
    "separator, spelled",
    [(",", "commas"), (" ", "blanks"), (";", "semicolons"), ("::", "double colons"), ("|", "bars")],
)
def test_a_wrong_separator_is_named(tmp_path, separator, spelled):
    folder = shop(tmp_path, text(rows()).replace("\t", separator))
    for call in (lambda: prepare("shop", tmp_path), lambda: export_released(folder, tmp_path / "out")):
        refused(call, "line 1", f"separated by {spelled}", "must be tabs")
    if separator != ",":
        released(tmp_path / "b", numbered().replace(",", separator))
        refused(lambda: prepare("shop", tmp_path / "b"), f"separated by {spelled}", "commas or tabs")


def test_recboles_own_separator_and_encoding_are_heard(tmp_path):
    shop(tmp_path, text(rows(users=["Jörg", "Åsa", "Zoë", "u", "v", "w"])).replace("\t", ",").encode("cp1252"))
    dataset = open_dataset("shop", tmp_path, AnyModel, {"field_separator": ",", "encoding": "cp1252"})
    assert "Jörg" in dataset.prepared.interactions.user_tokens


@pytest.mark.parametrize(
    "encoding, letters, said",
    [
        ("cp1252", "Crème brûlée, naïve", "Windows-1252"),
        ("gb18030", "红色的椅子和桌子", "GB18030"),
        ("cp1251", "Красный стул", "Windows-1251"),
        ("utf-16", "Desk", "UTF-16"),
        ("utf-32", "Desk", "UTF-32"),
    ],
)
def test_another_encoding_is_named_with_its_line(tmp_path, encoding, letters, said):
    folder = shop(tmp_path, text(rows()))
    content = f"item_id:token\ttitle:token_seq\ni0\tplain\ni1\t{letters}\n"
    (folder / "shop.item").write_bytes(content.encode(encoding))
    where = "line 3" if encoding[:3] != "utf" else "line 1"
    refused(lambda: read_titles(folder), where, "not UTF-8", said)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"PK\x03\x04....", "a zip archive or a spreadsheet"),
        (b"\x1f\x8b\x08\0", "packed by gzip"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, said):
    shop(tmp_path, content)
    released(tmp_path, content, "other")
    folder = shop(tmp_path, text(rows()), "third")
    (folder / "third.item").write_bytes(content)
    np.save(folder / "text_features.npy", np.ones((9, 2)))
    (folder / "text_features.tokens").write_bytes(content)
    for call in (
        lambda: prepare("shop", tmp_path),
        lambda: prepare("other", tmp_path),
        lambda: read_titles(folder),
        lambda: prepare("third", tmp_path),
    ):
        refused(call, said)


def test_feature_files_that_are_none(tmp_path):
    folder = released(tmp_path, numbered())
    (folder / "._text_features.npy").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert not prepare("shop", tmp_path).features
    for content, said in (
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"", "empty"),
        (b"<html>", "a web page"),
    ):
        (folder / "text_features.npy").write_bytes(content)
        assert "pickle" not in refused(lambda: prepare("shop", tmp_path), said)
    np.save(folder / "text_features.npy", np.ones((9, 2)) * 1j)
    refused(lambda: prepare("shop", tmp_path), "must be a numeric matrix", "complex128")
    np.save(folder / "image_features.npy", np.ones((9, 2)))
    np.save(folder / "vision_features.npy", np.ones((9, 2)))
    refused(
        lambda: prepare("shop", tmp_path), "image_features.npy and vision_features.npy are both the modality 'vision'"
    )


def test_tokens_files_with_a_mark_and_windows_line_ends(tmp_path):
    folder = shop(tmp_path, text(rows()))
    matrix = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.save(folder / "text_features.npy", matrix)
    (folder / "text_features.tokens").write_bytes(b"\xef\xbb\xbf" + "".join(f"i{k}\r\n" for k in range(9)).encode())
    data = prepare("shop", tmp_path)
    for place, token in enumerate(data.interactions.item_tokens):
        assert data.features["text"].matrix[place].tolist() == matrix[int(token[1:])].tolist()
    (folder / "text_features.tokens").write_text("".join(f"{'' if k == 4 else f'i{k}'}\n" for k in range(9)))
    refused(lambda: prepare("shop", tmp_path), "text_features.tokens, line 5: no token")
    (folder / "text_features.tokens").write_bytes("".join(f"ï{k}\n" for k in range(9)).encode("latin-1"))
    refused(lambda: prepare("shop", tmp_path), "text_features.tokens, line 1: not UTF-8")


# --- ids, times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["10000000000000000000{}", "900719925474099{}.0", "1844674407370955161{}", " {} ", "00{}", "+{}", "{}."]
)
def test_ids_stay_text_whatever_their_length(tmp_path, form):
    folder = released(tmp_path, numbered(form))
    digits = form.strip().lstrip("+0").removesuffix(".0").removesuffix(".")
    assert prepare("shop", tmp_path).interactions.user_tokens == tuple(digits.format(u) for u in range(6))
    atomic = import_released(folder, tmp_path / "a")
    assert prepare("shop", tmp_path / "a").interactions.user_tokens == tuple(digits.format(u) for u in range(6))
    assert AtomicSource("shop", atomic).interactions()["user"].tolist()[0] == digits.format(0)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t.replace("\n0,", "\n1e3,", 1), "line 2: the userID is '1e3' (its last digits are lost"),
        (lambda t: t.replace("\n1,", "\n01,", 1), "'1' and '01' are one number"),
        (lambda t: t.replace("\n0,", "\n-1,", 1), "line 2: the userID is '-1'"),
        (lambda t: t.replace("\n0,", "\n0.5,", 1), "line 2: the userID is '0.5'"),
        (lambda t: t.replace("\n0,", "\n,", 1), "line 2: the userID is ''"),
        (lambda t: t.replace("\n0,", "\n٣,", 1), "line 2: the userID is"),
        (lambda t: t.replace("userID", "userId"), "Did you mean 'userId'"),
        (lambda t: t.replace("userID", "userID "), "it has 'userID ', itemID"),
    ],
)
def test_ids_that_would_be_merged_or_guessed_are_refused(tmp_path, change, said):
    released(tmp_path, change(numbered()))
    refused(lambda: prepare("shop", tmp_path), said)


def test_ids_beyond_64_bits_through_import_and_export(tmp_path):
    big = "1" * 25
    folder = shop(tmp_path, text(rows(users=[f"{big}{k}" for k in range(6)], items=[f"{big}{k}" for k in range(9)])))
    out = export_released(folder, tmp_path / "out")
    assert (out / "items.csv").read_text().splitlines()[1] == f"0,{big}0,"
    assert sizes(tmp_path / "out") == (6, 9, 36)


@pytest.mark.parametrize(
    "values, said",
    [
        (["1594812345678900001", "1594812345678900002"], "nanoseconds"),
        (["1594812345678900", "1594812345678901"], "microseconds"),
        (["1594812345678", "1594812345679"], "milliseconds"),
        (["1594812345", "1594812346"], "seconds"),
        (["964980499.5", "964980499.25"], "seconds"),
        (["1.594812345678E12", "1594812345679"], "milliseconds"),
        (["1594812345", "1594812345679"], "mixed (from seconds to milliseconds)"),
        (["5", "7"], "other"),
    ],
)
def test_times_keep_every_digit_and_their_unit_is_said(values, said):
    times = columns.times(parse_table("t\n" + "\n".join(values) + "\n", "x"), "t")
    assert times.dtype == (np.float64 if any("." in v and "E" not in v for v in values) else np.int64)
    assert [float(v) if "." in v else int(v) for v in values] == times.tolist() and columns.time_unit(times) == said


@pytest.mark.parametrize(
    "value", ["9223372036854775808", "18446744073709551615", "1e30", "1516237335.600000123", "-inf", "0x10", ""]
)
def test_times_that_cannot_be_kept_are_refused(value):
    table = parse_table(f"t,u\n1,a\n{value},b\n", "x.csv")
    refused(lambda: columns.times(table, "t"), "x.csv, line 3")


def test_a_split_by_times_that_float64_cannot_tell_apart(tmp_path):
    start = 1_594_812_345_678_900_000
    places = [3, 1, 5, 0, 4, 2]
    found = [(u, i, str(start + places[k % 6])) for k, (u, i, _) in enumerate(rows())]
    folder = shop(tmp_path, text(found))
    inter = prepare("shop", tmp_path).interactions
    assert [inter.item_tokens[i] for i in inter.test] == [f"i{(u + 2) % 9}" for u in range(6)]
    assert [inter.item_tokens[i] for i in inter.valid] == [f"i{(u + 4) % 9}" for u in range(6)]
    assert prepare("shop", tmp_path).facts["times"] == "nanoseconds"
    out = export_released(folder, tmp_path / "out")
    assert [line.split(",")[3] for line in (out / "inter.csv").read_text().splitlines()[1:]] == [t for *_, t in found]


def test_import_and_export_are_the_same_bytes_with_nanoseconds(tmp_path):
    lines = [
        f"{u},{(u + k) % 9},5.0,{1594812345678900000 + 100 * u + 7 * k + 1},{max(0, k - 3)}"
        for u in range(6)
        for k in range(6)
    ]
    folder = released(tmp_path, "\n".join(["userID,itemID,rating,timestamp,split_label", *lines]) + "\n")
    back = export_released(import_released(folder, tmp_path / "a"), tmp_path / "b")
    assert (back / "inter.csv").read_bytes() == (folder / "inter.csv").read_bytes()


def test_item_ids_far_apart_are_one_line_for_features(tmp_path):
    folder = released(tmp_path, numbered(item="10000000000{}"))
    assert sizes(tmp_path) == (6, 9, 36)
    refused(
        lambda: items_of("shop", tmp_path), "9 items, but their itemIDs reach 100,000,000,008", "fedvlr data import"
    )
    import_released(folder, tmp_path / "a")
    assert len(items_of("shop", tmp_path / "a")[1]) == 9


# --- titles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("salt &amp; pepper", "salt & pepper"),
        ("&amp;amp;quot;x&amp;amp;quot;", '"x"'),
        ("it&#39;s &#x41;", "it's A"),
        ("a&nbsp;&nbsp;b", "a b"),
        ("AT&T, R&D; a&b=1&copy=2", "AT&T, R&D; a&b=1&copy=2"),
        ("soap \ud83d", "soap \ufffd"),
        ("line\none\ttwo", "line one two"),
        ("nan", ""),
        ("NaN", ""),
        ("None", ""),
        (" <NA> ", ""),
        ("The title is missing.", ""),
        ("Nan's bread", "Nan's bread"),
        ("N/A", "N/A"),
    ],
)
def test_titles_as_people_read_them(raw, clean):
    assert clean_title(raw) == clean and clean_title(clean) == clean


def test_titles_of_both_layouts_agree_or_are_refused(tmp_path):
    folder = shop(tmp_path, text(rows()))
    (folder / "shop.item").write_text(
        "item_id:token\ttitle:token_seq\ni0\tCrate &amp; box\ni1\tnan\ni2\t\ni3\t\ni3\tRug\n"
    )
    assert read_titles(folder) == {"i0": "Crate & box", "i3": "Rug"}
    assert prompts(["i1", "i0"], read_titles(folder)) == [
        "The title is missing.",
        "The title of this item is: Crate & box.",
    ]
    (folder / "items.csv").write_text("itemID,title\ni0,Crate &amp; box\ni5,Bed\n")
    assert read_titles(folder)["i5"] == "Bed"
    (folder / "items.csv").write_text("itemID,title\ni0,Lid\n")
    refused(lambda: read_titles(folder), "item 'i0' is called 'Lid', and 'Crate & box'")


def test_tfidf_does_not_count_entities():
    titles = [f"word{3 * k} word{3 * k + 1} word{3 * k + 2}" for k in range(30)]
    titles[:2] = ["salt &amp; pepper", "rock &amp; roll"]
    assert abs(float(np.dot(*tfidf_svd(titles)[:2]))) < 0.05


# --- raw files ---------------------------------------------------------------------------------------------------


def raw_beauty(folder, meta=None, name="meta_All_Beauty.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"U{u},B{(u + k) % 9:03d},5.0,{1600000000000 + 100 * u + k}" for u in range(6) for k in range(6)]
    (folder / "All_Beauty.csv").write_text("\n".join(["user_id,parent_asin,rating,timestamp", *lines]) + "\n")
    if meta is not None:
        (folder / name).write_text("\n".join(m if isinstance(m, str) else json.dumps(m) for m in meta) + "\n")
    return folder


def test_the_first_title_and_image_that_are_there_count(tmp_path):
    meta = [{"parent_asin": "B000", "title": None, "images": []}, {"parent_asin": "B000", "title": "nan"}]
    meta += [
        {"parent_asin": f"B{k:03d}", "title": f"thing {k}", "images": [{"large": f"https://x/{k}"}]} for k in range(9)
    ]
    manifest = prepare_raw("beauty", raw_beauty(tmp_path / "raw", meta), tmp_path / "out")
    assert (manifest["titles"], manifest["image_urls"], manifest["times"]) == (9, 9, "milliseconds")


def test_half_a_character_and_numbers_in_json(tmp_path):
    meta = [
        '{"parent_asin": "B000", "title": "soap \\ud83d"}',
        '{"parent_asin": "B001", "title": 1984, "x": 1e999, "y": NaN}',
    ]
    prepare_raw("beauty", raw_beauty(tmp_path / "raw", meta), tmp_path / "out")
    assert read_titles(tmp_path / "out/beauty") == {"B000": "soap \ufffd", "B001": "1984"}


@pytest.mark.parametrize(
    "line, said",
    [
        ("[" * 100_000, "line 2"),
        ('{"parent_asin": "B1", ', "line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
    ],
)
def test_odd_lines_of_json_are_named(tmp_path, line, said):
    raw_beauty(tmp_path / "raw", [{"parent_asin": "B000", "title": "x"}, line])
    refused(lambda: prepare_raw("beauty", tmp_path / "raw", tmp_path / "out"), said)


URL = "https://img.example/1.jpg"


@pytest.mark.parametrize(
    "entry",
    [
        URL,
        [{"variant": "PT01", "hi_res": "back"}, {"variant": "MAIN", "large": URL, "hi_res": None}],
        {"hi_res": [None], "large": [URL], "variant": ["MAIN"]},
        {"hi_res": ["back", None], "large": ["b", URL], "variant": ["PT01", "MAIN"]},
        str({"hi_res": [None], "large": [URL], "variant": ["MAIN"]}),
        f"{{'hi_res': array([None], dtype=object), 'large': array(['{URL}'], dtype=object), 'variant': array(['MAIN'], dtype=object)}}",
        f"[{{'large': 'b', 'variant': 'PT01'}}\n {{'large': '{URL}', 'variant': 'MAIN'}}]",
        json.dumps([{"large": URL}]),
        str([URL]),
    ],
)
def test_image_addresses_in_any_form(entry):
    assert image_url(entry) == URL


@pytest.mark.parametrize(
    "entry", ["", "nan", "None", None, "[oops", "{'large': [", "[]", {}, {"large": []}, [], 5, "no address here"]
)
def test_what_holds_no_address_gives_none(entry):
    assert image_url(entry) is None


def test_two_copies_of_a_raw_file(tmp_path):
    raw = raw_beauty(tmp_path / "raw")
    (raw / "A_old").mkdir()
    shutil.copy(raw / "All_Beauty.csv", raw / "A_old")
    (raw / "All_Beauty.csv.gz").write_bytes(gzip.compress((raw / "All_Beauty.csv").read_bytes()))
    with zipfile.ZipFile(raw / "z.zip", "w") as archive:
        archive.write(raw / "All_Beauty.csv", "in/All_Beauty.csv")
        archive.writestr("__MACOSX/in/._All_Beauty.csv", b"\0\5\x16\7")
    (raw / "._All_Beauty.csv").write_bytes(b"\0\5\x16\7")
    assert find(raw, ("All_Beauty.csv",)) is not None  # all the same
    (raw / "A_old/All_Beauty.csv").write_text("user_id,parent_asin,rating,timestamp\nu,i,1,1\n")
    refused(lambda: prepare_raw("beauty", raw, tmp_path / "out"), "A_old/All_Beauty.csv", "which differ")
    (raw / "A_old/All_Beauty.csv").unlink()
    (raw / "zz.zip").write_bytes(b"cut off")  # of something else, since the file is there
    assert find(raw, ("All_Beauty.csv",)) is not None
    (raw / "zz.zip").unlink()
    assert prepare_raw("beauty", raw, tmp_path / "out")["sources"][0]["name"] == "All_Beauty.csv"


# --- names -------------------------------------------------------------------------------------------------------


def test_names_are_matched_exactly_first_and_own_folders_come_first(tmp_path):
    for name, users in (("Shop", "abcdef"), ("shop", "abcdefgh"), ("planted", "abcdefg"), ("ml-100k", "abcdefghi")):
        shop(tmp_path, text(rows(users=list(users))), name)
    assert (sizes(tmp_path, "Shop")[0], sizes(tmp_path)[0]) == (6, 8)
    assert sizes(tmp_path, "planted")[0] == 7 and sizes(tmp_path, "ML-100k")[0] == 9
    assert sorted(available(tmp_path)) == ["Shop", "ml-100k", "planted", "shop"]
    with pytest.raises(UnknownNameError, match="Several differ in capitals only: Shop, shop"):
        canonical_name("SHOP", tmp_path)


def test_a_folder_in_another_unicode_form(tmp_path):
    shop(tmp_path, text(rows()), "cafe\u0301")
    (tmp_path / "cafe\u0301/cafe\u0301.inter").rename(tmp_path / "cafe\u0301/caf\u00e9.inter")
    assert sizes(tmp_path, "caf\u00e9") == (6, 9, 36)


def test_two_files_for_one_data_set_are_refused(tmp_path):
    folder = shop(tmp_path, text(rows()))
    (folder / "inter.csv").write_text(numbered())
    refused(lambda: find_source("shop", tmp_path), "both inter.csv and shop.inter")


def test_text_that_is_no_utf8_never_reaches_a_table():
    for content in (b"\xff", b"a\xc3", b"\xed\xa0\x80"):
        with pytest.raises(DataError, match="line 1: not UTF-8"):
            decode_text(content, "x")


def test_every_type_of_column_reaches_recbole(tmp_path):
    folder = shop(tmp_path, text(rows()))
    lines = [
        f"i{k}\t{' '.join(['red', 'big'][: k % 3])}\t{k}.5\t{'1 2.5' if k else ''}\tshop {k % 2}" for k in range(9)
    ]
    (folder / "shop.item").write_text(
        "\n".join(["item_id:token\tclass:token_seq\tprice:float\tsize:float_seq\tseller:token", *lines]) + "\n"
    )
    columns_of = {"inter": ["user_id", "item_id", "timestamp"], "item": "*"}
    dataset = open_dataset("shop", tmp_path, AnyModel, {"load_col": columns_of})
    assert dataset.prepared.interactions.n_items == 9
    train = dataset.build()[0]
    items = train.item_feat
    names = dataset.field2id_token
    place = int(np.flatnonzero(names["item_id"] == "i4")[0])
    assert [names["class"][k] for k in items["class"][place].tolist() if k] == ["red"]
    assert items["price"][place] == 4.5 and items["size"][place].tolist() == [1.0, 2.5]
    assert names["seller"][items["seller"][place]] == "shop 0"
    (folder / "shop.item").write_text("item_id:token\tprice:float\ni0\tcheap\n")
    refused(
        lambda: open_dataset("shop", tmp_path, AnyModel, {"load_col": columns_of}),
        "shop.item, line 2: the price is 'cheap'",
    )


def test_export_keeps_the_users_that_info_has(tmp_path):
    """A user below the filter is dropped when the folder is opened, in either layout; no row is lost on the way."""
    folder = shop(tmp_path, text([*rows(), ("rare", "i0", "5"), ("u0", "i0", "7")]))
    out = export_released(folder, tmp_path / "out")
    assert sizes(tmp_path) == sizes(tmp_path / "out") == (6, 9, 36)
    assert len((out / "inter.csv").read_text().splitlines()) == 39
    assert (
        prepare("shop", tmp_path).facts["duplicate_rows"]
        == prepare("shop", tmp_path / "out").facts["duplicate_rows"]
        == 1
    )
