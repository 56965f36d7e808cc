"""Files of users, changed at random: each command refuses in one line, or all of them see the same rows."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedvlr_plugin.data.preparation.convert import export_released, import_released
from fedvlr_plugin.data.preparation.prepare import prepare_raw
from fedvlr_plugin.data.reading.items import read_titles
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.features.encode import items_of

BULK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ROWS = [(f"u{u}", f"i{(u + k) % 8}", 100 * u + k) for u in range(4) for k in range(6)]
ODD = [
    "", "nan", "null", '"', '""', '"a', 'b"', "\t", ",", ";", "\n", "\r", "\r\n", "\0", "\ufeff", "\u2028", "\x85", "\x1a", "é", "e\u0301",
    "1e999", "-1", "0x10", "1_0", "٣", "9" * 30, "inf", "3.5", " 4 ", ":token", ":float", "::", "\\", "\\N", "#", "'", "=1", "&amp;", "{", "[", "\u200b",
]  # fmt: skip
BYTES = [b"\xff", b"\xfe\xff", b"\xe9", b"\xed\xa0\x80", b"PK\x03\x04", b"\x1f\x8b", b"\x00"]


@st.composite
def changed(draw, content: bytes) -> bytes:
    """One to three changes: a piece put in, taken out, doubled, or the whole in another encoding."""
    out = content
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(out)))
        kind = draw(st.sampled_from(["put", "put", "put", "cut", "double", "end", "replace", "encode"]))
        piece = draw(st.one_of(st.sampled_from(ODD).map(str.encode), st.sampled_from(BYTES)))
        if kind == "put":
            out = out[:place] + piece + out[place:]
        elif kind == "cut":
            out = out[:place] + out[place + draw(st.integers(1, 30)) :]
        elif kind == "double":
            out = out[:place] + out[max(0, place - 25) : place] + out[place:]
        elif kind == "end":
            out = out[:place]
        elif kind == "replace":
            old = draw(st.sampled_from([b"\t", b",", b"\n", b"i3", b"u1", b"0", b":", b"thing"]))
            out = out.replace(old, piece, draw(st.sampled_from([-1, 1])))
        else:
            out = out.decode("utf-8", "replace").encode(
                draw(st.sampled_from(["utf-16", "utf-8-sig", "utf-32", "gb18030"]))
            )
    return out


def outcome(call):
    """What a call gives, None when it refuses in one line; anything else fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except FedVLRError as error:
            assert str(error).strip() and "\n" not in str(error), str(error)
            return None


def sizes(name, root):
    inter = prepare(name, root).interactions
    return inter.n_users, inter.n_items, inter.n_interactions


INTER = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in ROWS)
ITEM = "item_id:token\ttitle:token_seq\n" + "".join(f'i{k}\tthing {k} "x"\n' for k in range(8))
TOKENS = "".join(f"i{k}\n" for k in range(8))
ATOMIC = {"shop.inter": INTER.encode(), "shop.item": ITEM.encode(), "text_features.tokens": TOKENS.encode()}


@BULK
@given(st.data())
def test_odd_atomic_files(data):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = root / "a/shop"
        folder.mkdir(parents=True)
        which = data.draw(st.sampled_from([*ATOMIC, "shop.inter"]))
        for name, content in ATOMIC.items():
            (folder / name).write_bytes(data.draw(changed(content)) if name == which else content)
        np.save(folder / "text_features.npy", np.arange(16, dtype=np.float32).reshape(8, 2))
        seen = outcome(lambda: sizes("shop", root / "a"))
        titles = outcome(lambda: read_titles(folder))
        items = outcome(lambda: items_of("shop", root / "a"))
        out = outcome(lambda: export_released(folder, root / "b"))
        if which == "shop.inter":
            assert titles is not None and (seen is None or items is not None)
        if out is not None:
            assert seen is None or outcome(lambda: sizes("shop", root / "b")) == seen
            assert items is not None and titles is not None
        elif seen is not None:
            assert titles is None, "export refuses what info takes"


@BULK
@given(st.data())
def test_odd_folders_in_the_released_layout(data):
    inter = "userID,itemID,rating,timestamp\n" + "".join(f"{u[1:]},{i[1:]},5.0,{t}\n" for u, i, t in ROWS)
    items = "itemID,movieId,title\n" + "".join(f'{k},m{k},"thing ""{k}"", new"\n' for k in range(8))
    files = {"inter.csv": inter.encode(), "items.csv": items.encode()}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = root / "a/shop"
        folder.mkdir(parents=True)
        which = data.draw(st.sampled_from(list(files)))
        for name, content in files.items():
            (folder / name).write_bytes(data.draw(changed(content)) if name == which else content)
        seen = outcome(lambda: sizes("shop", root / "a"))
        titles = outcome(lambda: read_titles(folder))
        out = outcome(lambda: import_released(folder, root / "b"))
        if out is not None:
            assert outcome(lambda: sizes("shop", root / "b")) == seen
            assert outcome(lambda: read_titles(out)) == titles
        else:
            assert seen is None or titles is None


@BULK
@given(st.data())
def test_odd_raw_files(data):
    ratings = "user_id,parent_asin,rating,timestamp\n" + "".join(f"{u},{i},5.0,{t}\n" for u, i, t in ROWS)
    meta = "".join(
        json.dumps({"parent_asin": f"i{k}", "title": f"thing {k}", "images": [{"large": "u"}]}) + "\n" for k in range(8)
    )
    table = "parent_asin,title,images\n" + "".join(f"i{k},\"thing, {k}\",\"[{{'large': 'u'}}]\"\n" for k in range(8))
    described = data.draw(st.sampled_from([("meta_All_Beauty.jsonl", meta), ("meta_All_Beauty.csv", table)]))
    files = {"All_Beauty.csv": ratings.encode(), described[0]: described[1].encode()}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "raw").mkdir()
        which = data.draw(st.sampled_from(list(files)))
        for name, content in files.items():
            (root / "raw" / name).write_bytes(data.draw(changed(content)) if name == which else content)
        manifest = outcome(lambda: prepare_raw("beauty", root / "raw", root / "out"))
        if manifest is None:
            assert not (root / "out/beauty").exists()
            return
        counts = manifest["after"]
        assert sizes("beauty", root / "out") == (counts["users"], counts["items"], counts["interactions"])
        assert len(read_titles(root / "out/beauty")) == manifest["titles"]
