"""Bad atomic files get one line of ours, not a traceback of the host's."""

import numpy as np
import pytest

from fedvlr_plugin.data.recbole.loader import AnyModel, open_dataset, prepare
from fedvlr_plugin.errors import DataError

HEAD = "user_id:token\titem_id:token\ttimestamp:float\n"
ROWS = "".join(f"u{u}\ti{(u + k) % 7}\t{k}\n" for u in range(4) for k in range(5))


def write(root, text):
    folder = root / "shop"
    folder.mkdir()
    (folder / "shop.inter").write_text(text)
    return folder


def test_a_good_one_opens(tmp_path):
    write(tmp_path, HEAD + ROWS)
    assert prepare("shop", tmp_path).interactions.n_interactions == 20


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "shop/shop.inter is empty; its first line must be like user_id:token"),
        (HEAD, "has no rows"),
        (HEAD.replace(":float", "") + ROWS, "the column 'timestamp' has no type"),
        (HEAD.replace("timestamp", "when") + ROWS, "lacks the column.*timestamp; it has user_id, item_id, when"),
        (HEAD + ROWS + "u0\ti6\tsoon\n", "line 22: the timestamp is 'soon'; a finite number is needed"),
        (HEAD + "u0\ti6\n" + ROWS, r"line 2 has 2 field\(s\), the heading has 3"),
        (HEAD + "".join(f"u{u}\ti{k}\t{k}\n" for u in range(3) for k in range(4)), "no user is left after the filter"),
    ],
)
def test_bad_ones(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        prepare("shop", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_load_col_without_the_time_is_refused(tmp_path):
    write(tmp_path, HEAD + ROWS)
    with pytest.raises(DataError, match="load_col leaves out timestamp"):
        open_dataset("shop", tmp_path, AnyModel, {"load_col": {"inter": ["user_id", "item_id"]}})


def test_feature_files_need_their_tokens(tmp_path):
    folder = write(tmp_path, HEAD + ROWS)
    np.save(folder / "text_features.npy", np.ones((7, 2), dtype=np.float16))
    with pytest.raises(DataError, match="has no text_features.tokens beside it: one raw item token a line"):
        prepare("shop", tmp_path)
    (folder / "text_features.tokens").write_text("i0\ni1\n")
    with pytest.raises(DataError, match="7 rows and text_features.tokens 2 tokens"):
        prepare("shop", tmp_path)
    (folder / "text_features.tokens").write_text("".join(f"x{k}\n" for k in range(7)))
    with pytest.raises(DataError, match="a row for none of the 7 items.*Key the features by raw item token"):
        prepare("shop", tmp_path)
    (folder / "text_features.tokens").write_text("".join(f"i{k}\n" for k in range(7)))
    assert prepare("shop", tmp_path).features["text"].matrix.dtype == np.float32
