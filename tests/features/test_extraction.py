"""Features of a data set: order, resume, manifest, imputation, labels; by encoders that can be computed by hand."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra clip (Pillow) is not installed")
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from fedvlr_plugin.data.preparation.convert import import_released  # noqa: E402
from fedvlr_plugin.data.recbole.loader import prepare  # noqa: E402
from fedvlr_plugin.errors import ConfigError, DataError, UnknownNameError  # noqa: E402
from fedvlr_plugin.features.encode import encode_dataset, make_encoder  # noqa: E402
from fedvlr_plugin.features.encoder import TEXT, VISION, Encoder  # noqa: E402
from fedvlr_plugin.features.extraction import MISSING_TITLE, extract_images, extract_texts, prompts  # noqa: E402


class Letters(Encoder):
    """A text is its length and its last letter, an image its red value; can be told to fail after some calls."""

    modalities = frozenset({VISION, TEXT})
    default_batch = 4

    def __init__(self, dies_after=None, version=1):
        self.calls, self.dies_after, self.version = [], dies_after, version

    def facts(self):
        return {"encoder": "letters", "model": str(self.version), "random_weights": self.version == 0}

    def _count(self, batch):
        if self.dies_after is not None and len(self.calls) == self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(batch)

    def encode_texts(self, texts):
        self._count(list(texts))
        return np.array([[len(text), ord(text[-2])] for text in texts], dtype=np.float32)

    def preprocess(self, image):
        return torch.tensor(float(image.getpixel((0, 0))[0]))

    def encode_images(self, batch):
        self._count(batch)
        return torch.stack([batch, torch.ones_like(batch)], 1).numpy()


TOKENS = tuple(f"i{k}" for k in range(10))
TITLES = {token: "x" * k + "abcdefghij"[k] for k, token in enumerate(TOKENS) if k != 3}


def test_prompts_are_the_papers():
    assert prompts(["i0", "i3"], TITLES) == ["The title of this item is: a.", "The title is missing."]
    assert prompts(["q"], {"q": "{} {0} {x}"}) == ["The title of this item is: {} {0} {x}."]
    with pytest.raises(ConfigError, match="has no {} for the title"):
        prompts(["i0"], TITLES, "no place")


def test_texts_in_the_order_of_tokens_with_a_manifest(tmp_path):
    found = extract_texts(Letters(), TOKENS, TITLES, tmp_path)
    matrix = np.load(tmp_path / "text_features.npy")
    assert matrix.dtype == np.float16 and matrix.shape == (10, 2)
    assert [chr(int(v)) for v in matrix[:, 1]] == list("abc" + MISSING_TITLE[-2] + "efghij")
    assert (tmp_path / "text_features.tokens").read_text().split() == list(TOKENS)
    manifest = json.loads((tmp_path / "text_features.json").read_text())
    assert manifest["problems"] == {"i3": "no title"} and manifest["imputed"] == 0 and manifest["label"] == "letters 1"
    assert manifest["rules"]["prompt"] == "The title of this item is: {}." and found.rows == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"text_features.{s}" for s in ("json", "npy", "tokens")]


def test_an_interruption_is_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract_texts(Letters(dies_after=2), TOKENS, TITLES, tmp_path / "a")
    assert not (tmp_path / "a/text_features.npy").exists()
    again = Letters()
    found = extract_texts(again, TOKENS, TITLES, tmp_path / "a")
    assert found.resumed == 8 and [len(call) for call in again.calls] == [2]
    extract_texts(Letters(), TOKENS, TITLES, tmp_path / "b")
    for name in ("text_features.npy", "text_features.tokens", "text_features.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("change", ["encoder", "titles", "tokens"])
def test_other_inputs_start_anew(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        extract_texts(Letters(dies_after=2), TOKENS, TITLES, tmp_path)
    encoder = Letters(version=2) if change == "encoder" else Letters()
    titles = {**TITLES, "i0": "another"} if change == "titles" else TITLES
    tokens = TOKENS[::-1] if change == "tokens" else TOKENS
    assert extract_texts(encoder, tokens, titles, tmp_path).resumed == 0
    assert sum(map(len, encoder.calls)) == 10


def test_a_part_file_with_a_torn_row_is_cut_back(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract_texts(Letters(dies_after=1), TOKENS, TITLES, tmp_path)
    with (tmp_path / "text_features.part").open("ab") as file:
        file.write(b"\x01\x02\x03")
    assert extract_texts(Letters(), TOKENS, TITLES, tmp_path).resumed == 4
    assert [chr(int(v)) for v in np.load(tmp_path / "text_features.npy")[4:, 1]] == list("efghij")


def write_images(folder, without=(), broken=()):
    folder.mkdir()
    for k, token in enumerate(TOKENS):
        if token in broken:
            (folder / f"{token}.png").write_bytes(b"nothing")
        elif token not in without:
            Image.new("RGB", (2, 2), (k, 0, 0)).save(folder / f"{token}.png")
    return [folder / f"{token}.png" for token in TOKENS]


def test_images_that_are_missing_are_listed_and_imputed(tmp_path):
    paths = write_images(tmp_path / "images", without=("i2",), broken=("i5", "i6", "i7"))
    found = extract_images(Letters(), TOKENS, paths, tmp_path / "keyed", batch_size=3)
    assert found.rows == 6 and set(found.problems) == {"i2", "i5", "i6", "i7"} and found.problems["i2"] == "missing"
    assert np.load(tmp_path / "keyed/image_features.npy")[:, 0].tolist() == [0, 1, 3, 4, 8, 9]
    assert (tmp_path / "keyed/image_features.tokens").read_text().split() == ["i0", "i1", "i3", "i4", "i8", "i9"]
    extract_images(Letters(), TOKENS, paths, tmp_path / "rows", by_row=True)
    whole = np.load(tmp_path / "rows/image_features.npy")
    assert whole[[2, 5, 6, 7], 0].tolist() == [np.float16(25 / 6)] * 4 and whole[9, 0] == 9
    assert json.loads((tmp_path / "rows/image_features.json").read_text())["imputed"] == 4


def test_images_resume_too_and_batches_do_not_matter(tmp_path):
    paths = write_images(tmp_path / "images", without=("i2",))
    with pytest.raises(KeyboardInterrupt):
        extract_images(Letters(dies_after=1), TOKENS, paths, tmp_path / "a", batch_size=4)
    found = extract_images(Letters(), TOKENS, paths, tmp_path / "a", batch_size=3)
    assert found.resumed == 4 and found.problems == {"i2": "missing"}
    extract_images(Letters(), TOKENS, paths, tmp_path / "b", batch_size=10)
    assert (tmp_path / "a/image_features.npy").read_bytes() == (tmp_path / "b/image_features.npy").read_bytes()


def test_no_image_at_all_is_one_clear_line_and_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="none of the 10 items has a readable image .item 'i0': missing."):
        extract_images(Letters(), TOKENS, [None] * 10, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_nan_is_refused(tmp_path):
    class Broken(Letters):
        def encode_texts(self, texts):
            return super().encode_texts(texts) * np.nan

    with pytest.raises(DataError, match="gave NaN or infinite values"):
        extract_texts(Broken(), TOKENS, TITLES, tmp_path)


def write_released(root):
    folder = root / "shop"
    folder.mkdir(parents=True)
    rows = [f"{u},{(u + k) % 9},1.0,{k}" for u in range(6) for k in range(6)]
    (folder / "inter.csv").write_text("userID,itemID,rating,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "items.csv").write_text(
        "itemID,title\n" + "".join(f"{i},red shoe {'abcdefghi'[i]}\n" for i in range(8)) + "8,\n"
    )
    return folder


@pytest.mark.parametrize("layout", ["released", "atomic"])
def test_a_data_set_by_name_with_tfidf(tmp_path, layout):
    folder = write_released(tmp_path / "released")
    root = import_released(folder, tmp_path / "atomic").parent if layout == "atomic" else tmp_path / "released"
    lines = list(encode_dataset("shop", ["text"], "tfidf", {"model": "3"}, None, None, root))
    assert lines[0] == "text: 9 of 9 items, 3 columns, by TF-IDF + SVD width 3"
    assert any("without usable input: 1 no title (e.g. item 8)" in line for line in lines)
    data = prepare("shop", root)
    assert data.features["text"].matrix.shape == (9, 3) and data.facts["features_text"] == "TF-IDF + SVD width 3"
    np.save(root / "shop/text_features.npy", np.ones((9, 3), dtype=np.float16))
    assert "belongs to other values" in prepare("shop", root).facts["features_text"]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("shop", ["sound"], "tfidf", {}), ConfigError, "unknown modality 'sound'; it must be vision or text"),
        (("shop", ["vision"], "tfidf", {}), ConfigError, "name their folder with --images"),
        (("shop", ["text"], "tfidff", {}), UnknownNameError, "unknown encoder 'tfidff'.*Did you mean 'tfidf'"),
        (
            ("shop", ["text"], "tfidf", {"weights": 1}),
            ConfigError,
            "the encoder 'tfidf' has no --weights; it has model",
        ),
        (("shop", ["text"], "tfidf", {"model": "wide"}), ConfigError, "a whole number from 1, got 'wide'"),
        (("ml-100k", ["text"], "tfidf", {}), DataError, "brings its own features"),
        (("bare", ["text"], "tfidf", {}), DataError, "'bare' has no titles"),
    ],
)
def test_wrong_requests(tmp_path, arguments, error, message):
    write_released(tmp_path)
    bare = write_released(tmp_path / "x").rename(tmp_path / "bare")
    (bare / "items.csv").unlink()
    with pytest.raises(error, match=message) as caught:
        list(encode_dataset(*arguments, data_root=tmp_path))
    assert "\n" not in str(caught.value)


def test_an_encoder_without_vision_says_so(tmp_path):
    write_released(tmp_path)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ConfigError, match="the encoder 'tfidf' makes no vision features, only text"):
        list(encode_dataset("shop", ["vision"], "tfidf", {}, tmp_path / "pictures", data_root=tmp_path))


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_timm_where_installed(tmp_path):
    encoder = make_encoder("timm", {"model": "resnet10t", "allow_random_weights": True, "device": "cpu"})
    assert encoder.label.startswith("RANDOM WEIGHTS")
    paths = write_images(tmp_path / "images")
    assert extract_images(encoder, TOKENS, paths, tmp_path).width == 512
    with pytest.raises(ConfigError, match="timm has no model 'resnet10x'"):
        make_encoder("timm", {"model": "resnet10x"})


def test_sentence_transformers_that_is_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install sentence-transformers"):
        make_encoder("sentence-transformers", {})


def test_feature_files_that_are_there_are_not_replaced_unasked(tmp_path):
    folder = write_released(tmp_path)
    np.save(folder / "text_features.npy", np.ones((9, 2), dtype=np.float16))
    before = (folder / "text_features.npy").read_bytes()
    with pytest.raises(
        DataError, match="'shop/text_features.npy' is there already; keep it, or replace it for good with"
    ):
        list(encode_dataset("shop", ["text"], "tfidf", {"model": "3"}, data_root=tmp_path))
    assert (folder / "text_features.npy").read_bytes() == before
    list(encode_dataset("shop", ["text"], "tfidf", {"model": "3"}, data_root=tmp_path, overwrite=True))
    assert np.load(folder / "text_features.npy").shape == (9, 3)
