"""open_clip for real, on a small tower of its own kind: preprocessing, activation, weights, batches, random weights."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("open_clip") is None:
    pytest.skip("the extra clip (open_clip_torch) is not installed", allow_module_level=True)
import torch
from PIL import Image

from fedvlr_plugin.compat import prepare_torchvision
from fedvlr_plugin.data.images import decode
from fedvlr_plugin.errors import ConfigError, DataError, DeviceError, UnknownNameError
from fedvlr_plugin.features import clip as clip_module
from fedvlr_plugin.features.clip import OpenClipEncoder, whose
from fedvlr_plugin.features.extraction import extract_images, extract_texts

prepare_torchvision()
import open_clip  # noqa: E402

TINY = str(Path(__file__).parent / "tiny_clip.json")
RAW = Path(os.environ["FEDVLR_DATA"]) / "raw" / "movielens" if "FEDVLR_DATA" in os.environ else None
needs_posters = pytest.mark.skipif(RAW is None, reason="FEDVLR_DATA names no data root with the real posters")


@pytest.fixture(scope="module")
def tiny():
    return OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")


def pictures(count=7):
    source = np.random.default_rng(0)
    sizes = [(300, 200), (224, 224), (50, 80), (640, 100), (225, 223)]
    return [Image.fromarray(source.integers(0, 256, (*sizes[k % 5][::-1], 3), dtype=np.uint8)) for k in range(count)]


def test_preprocessing_is_that_of_openai_s_vit_b_32():
    """The whole ViT-B-32 as the paper names it, its stock transform built by open_clip from the tag."""
    expected = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**{
            k: v for k, v in open_clip.get_pretrained_cfg("ViT-B-32", "openai").items()
            if k in ("mean", "std", "interpolation", "resize_mode")
        }),
        is_train=False,
    )  # fmt: skip
    model, preprocess = clip_module._build("ViT-B-32", open_clip.get_pretrained_cfg("ViT-B-32", "openai"), None)
    for picture in pictures(3):
        assert torch.equal(preprocess(picture), expected(picture))
    assert any(type(m).__name__ == "QuickGELU" for m in model.modules())
    assert sum(p.numel() for p in model.parameters()) == 151_277_313


def test_vectors_are_those_of_open_clip(tiny):
    batch = torch.stack([tiny.preprocess(p) for p in pictures()])
    with torch.no_grad():
        direct = tiny._model.encode_image(batch, normalize=True).numpy()
        texts = ["The title of this item is: a.", "b"]
        words = tiny._model.encode_text(open_clip.tokenize(texts), normalize=True).numpy()
    assert np.abs(tiny.encode_images(batch) - direct).max() < 1e-6
    assert np.abs(tiny.encode_texts(texts) - words).max() < 1e-6
    assert np.allclose(np.linalg.norm(tiny.encode_images(batch), axis=1), 1, atol=1e-6)


def test_batch_size_does_not_change_a_vector(tiny):
    batch = torch.stack([tiny.preprocess(p) for p in pictures(9)])
    one = np.concatenate([tiny.encode_images(batch[k : k + 1]) for k in range(9)])
    four = np.concatenate([tiny.encode_images(batch[k : k + 4]) for k in range(0, 9, 4)])
    assert np.abs(one - tiny.encode_images(batch)).max() < 1e-5 and np.abs(four - one).max() < 1e-5
    texts = [f"title {k} " + "word " * k for k in range(9)]
    assert np.abs(np.concatenate([tiny.encode_texts([t]) for t in texts]) - tiny.encode_texts(texts)).max() < 1e-5


@pytest.mark.parametrize("texts", [["a"], ["a", "longer " * 20], ["word " * 100, ""], ["The title is missing."]])
def test_leaving_the_padding_out_changes_nothing(tiny, texts):
    """Short batches are cut, full ones are not; both equal open_clip's own encode_text."""
    with torch.no_grad():
        full = tiny._model.encode_text(open_clip.tokenize(texts), normalize=True).numpy()
    assert np.abs(tiny.encode_texts(texts) - full).max() < 1e-6


def save_weights(path, quick=False, seed=5, kind="state"):
    open_clip.add_model_config(TINY)
    torch.manual_seed(seed)
    model = open_clip.create_model("tiny_clip", force_quick_gelu=quick)
    if kind == "state":
        torch.save(model.state_dict(), path)
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    else:
        traced = torch.jit.trace_module(
            model.eval(),
            {"encode_image": torch.zeros(1, 3, 224, 224), "encode_text": torch.zeros(1, 77, dtype=torch.long)},
            check_trace=False,
        )
        torch.jit.save(traced, path)
    return model.eval()


@pytest.mark.parametrize(
    "kind, name", [("state", "w.pt"), ("safetensors", "w.safetensors"), ("torchscript", "openai.pt")]
)
def test_local_weights_files_work_offline(tmp_path, kind, name):
    model = save_weights(tmp_path / name, kind=kind)
    encoder = OpenClipEncoder("tiny_clip", "mine", tmp_path / name, device="cpu")
    batch = torch.stack([encoder.preprocess(p) for p in pictures(3)])
    with torch.no_grad():
        assert np.abs(encoder.encode_images(batch) - model.encode_image(batch, normalize=True).numpy()).max() < 1e-5
    assert encoder.facts()["random_weights"] is False and len(encoder.facts()["weights_sha256"]) == 64
    assert encoder.label == f"open_clip tiny_clip (file {name})"


def test_weights_that_do_not_fit_or_are_no_weights(tmp_path):
    save_weights(tmp_path / "w.pt")
    with pytest.raises(DataError, match="'w.pt' cannot be loaded into this model.*--encoder tfidf"):
        OpenClipEncoder("ViT-S-32", "mine", tmp_path / "w.pt", device="cpu")
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(DataError, match="'bad.pt' cannot be loaded") as caught:
        OpenClipEncoder(TINY, "mine", tmp_path / "bad.pt", device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="nowhere.pt' is not there; give a local file with --weights"):
        OpenClipEncoder(TINY, "mine", tmp_path / "nowhere.pt")


def test_weights_that_cannot_be_fetched_are_never_replaced_by_random_ones(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", refuse)
    monkeypatch.setattr(clip_module, "cached", lambda *_: None)
    monkeypatch.setattr(clip_module, "no_way_there", lambda: None)
    with pytest.raises(
        DataError, match=r"weights 'openai' of ViT-B-32 cannot be had \(no route to host\); give a local file"
    ):
        OpenClipEncoder(device="cpu")


def test_without_a_way_to_the_hub_it_is_not_asked_and_its_cache_is_used(monkeypatch, tmp_path, capfd):
    asked = []
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda *_: asked.append(1))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(clip_module, "cached", lambda *_: None)
    with pytest.raises(DataError, match=r"cannot be had \(http://127.0.0.1:9 cannot be reached: .*--encoder tfidf"):
        OpenClipEncoder(device="cpu")
    assert not asked and capfd.readouterr().err == ""
    monkeypatch.setattr(clip_module, "cached", lambda repository, names: tmp_path / f"{repository}-{names[0]}")
    here = clip_module._fetch({"hf_hub": "timm/vit/"}, "m", "p")
    assert here.name == "vit-open_clip_model.safetensors" and not asked


def test_a_weights_file_is_never_advised_to_be_loaded_unsafely(tmp_path):
    (tmp_path / "evil.pt").write_text("movieId,title\n")
    with pytest.raises(DataError, match="'evil.pt' cannot be loaded .*it holds no plain weights") as caught:
        OpenClipEncoder(TINY, "mine", tmp_path / "evil.pt", device="cpu")
    assert "weights_only" not in str(caught.value)


def test_names_are_checked(tmp_path):
    with pytest.raises(UnknownNameError, match="'ViT-B-33'.*Did you mean 'ViT-.*Known: ViT-"):
        OpenClipEncoder("ViT-B-33")
    with pytest.raises(UnknownNameError, match="unknown set of weights for ViT-B-32 'openaii'.*Did you mean 'openai'"):
        OpenClipEncoder("ViT-B-32", "openaii")
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="exclude each other"):
        OpenClipEncoder(TINY, "x", tmp_path / "w.pt", allow_random_weights=True)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="the device 'cuda' is not there; available: cpu"):
            OpenClipEncoder(TINY, allow_random_weights=True, device="cuda")


def test_random_weights_are_repeatable_and_labelled_everywhere(tiny, tmp_path):
    again = OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")
    texts = ["a", "b c"]
    assert np.array_equal(again.encode_texts(texts), tiny.encode_texts(texts))
    assert tiny.label == "RANDOM WEIGHTS, not a trained encoder: open_clip tiny_clip"
    extract_texts(tiny, ("x", "y"), {"x": "one"}, tmp_path)
    manifest = json.loads((tmp_path / "text_features.json").read_text())
    assert manifest["random_weights"] is True and manifest["label"].startswith("RANDOM WEIGHTS")
    assert manifest["weights"] == "random, seed 0" and "Normalize" in manifest["preprocessing"]


def test_making_an_encoder_leaves_the_global_random_state(tiny):
    state = torch.get_rng_state()
    OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")
    assert torch.equal(state, torch.get_rng_state())


@needs_posters
def test_real_posters(tiny, tmp_path):
    """All of them: order follows the tokens, interruption resumes, one of them by hand."""
    paths = sorted((RAW / "posters").glob("*.jpg"), key=lambda p: int(p.stem))[::-1]
    tokens = tuple(p.stem for p in paths)
    stop = iter(range(4))

    class Dies(Exception):
        pass

    def watch(_):
        if next(stop) == 3:
            raise Dies

    with pytest.raises(Dies):
        extract_images(tiny, tokens, paths, tmp_path / "a", batch_size=32, on_rows=watch)
    resumed = extract_images(tiny, tokens, paths, tmp_path / "a", batch_size=64)
    assert resumed.resumed == 128 and resumed.rows == len(tokens) == 300 and resumed.problems == {}
    matrix = np.load(tmp_path / "a/image_features.npy")
    assert (tmp_path / "a/image_features.tokens").read_text().split() == list(tokens)
    for row in (0, 131, 299):
        alone = tiny.encode_images(tiny.preprocess(decode(paths[row]).image)[None])[0]
        assert np.abs(matrix[row] - alone).max() < 1e-3
    assert np.unique(matrix, axis=0).shape[0] > 290


def test_a_weights_file_is_the_publishers_only_by_its_hash(tmp_path):
    tag = {"url": "https://example.org/clip/abc123/ViT-B-32.pt"}
    file = tmp_path / "mine.pt"
    assert whose(file, "abc123", tag, "openai", given=True) == "openai"
    assert whose(file, "def456", tag, "openai", given=True) == "file mine.pt, said to be openai"
    assert whose(file, "def456", {}, "mine", given=True) == "file mine.pt"
    assert whose(file, "def456", tag, "openai", given=False) == "openai"  # open_clip checks what it fetches
