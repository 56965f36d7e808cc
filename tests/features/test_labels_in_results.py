"""Random weights are named in every result: manifest, data, record, caption, verdict."""

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("open_clip") is None:
    pytest.skip("the extra clip (open_clip_torch) is not installed", allow_module_level=True)

from fedvlr_plugin.cli.tables import main
from fedvlr_plugin.config import ModelConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.released_layout import PAPERS_OWN
from fedvlr_plugin.evaluation.significance import Interval
from fedvlr_plugin.experiment.record import DataPart
from fedvlr_plugin.experiment.run import run
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.features.clip import OpenClipEncoder
from fedvlr_plugin.features.extraction import extract_texts
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.verdict import RELEASED_FEATURES, judge_value

TINY = str(Path(__file__).with_name("tiny_clip.json"))


def write_set(root: Path) -> Path:
    """Eight users who met all but one of nine items, in the released layout."""
    folder = root / "made"
    folder.mkdir()
    lines = ["userID,itemID,rating,timestamp"]
    for user in range(8):
        items = [item for item in range(9) if item != user]
        lines += [f"{user},{item},1,{100 * user + place}" for place, item in enumerate(items)]
    (folder / "inter.csv").write_text("\n".join(lines))
    return folder


def test_a_random_tower_is_named_from_the_manifest_to_the_table(tmp_path):
    folder = write_set(tmp_path)
    tokens = tuple(str(item) for item in range(9))
    encoder = OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")
    extract_texts(encoder, tokens, {token: f"title {token}" for token in tokens}, folder, by_row=True)
    assert json.loads((folder / "text_features.json").read_text())["random_weights"] is True
    data = prepare("made", tmp_path)
    spec = RunSpec(dataset="made", row="FCF+ours", training=TrainingConfig(rounds=1), model=ModelConfig(dim=4))
    store = ResultsStore(tmp_path / "results")
    record = store.append(run(spec, data=data), data)
    assert record.data.sources["text"].startswith("RANDOM WEIGHTS")
    (line,) = [text for text in caption(build_table(store, [spec], None, "smoke")) if "RANDOM WEIGHTS" in text]
    assert line.startswith("Features of made: text: RANDOM WEIGHTS")
    assert "random_weights" not in line


def test_random_weights_are_named_in_figures_and_their_tables(tmp_path):
    folder = write_set(tmp_path)
    tokens = tuple(str(item) for item in range(9))
    encoder = OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")
    extract_texts(encoder, tokens, {token: f"title {token}" for token in tokens}, folder, by_row=True)
    arguments = ["--datasets", "made", "--data-root", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main([*arguments, "--profile", "smoke", "--rows", "FCF+ours"], output="figure2") == 0
    assert main([*arguments, "--profile", "smoke", "--rows", "FCF+ours"]) == 0
    for name in ("figures/figure2-smoke-corrected", "figures/cost-accuracy-smoke-corrected"):
        assert "Features of made: text: RANDOM WEIGHTS" in (tmp_path / "results" / f"{name}.md").read_text()
    if find_spec("matplotlib") is not None:
        drawn = list((tmp_path / "results/figures").glob("*.svg"))
        assert len(drawn) == 2 and all("RANDOM WEIGHTS" in file.read_text() for file in drawn)


def test_features_that_no_longer_are_the_manifests_are_of_unknown_origin(tmp_path):
    folder = write_set(tmp_path)
    tokens = tuple(str(item) for item in range(9))
    encoder = OpenClipEncoder(TINY, allow_random_weights=True, device="cpu")
    extract_texts(encoder, tokens, {token: token for token in tokens}, folder, by_row=True)
    np.save(folder / "text_features.npy", np.ones((9, 4), dtype=np.float16))
    assert "unknown origin" in prepare("made", tmp_path).features["text"].source


CLIP = "open_clip ViT-B-32 (openai)"
MADE = DataPart(
    name="ku", fingerprint="made by the user", interactions_fingerprint="", users=204, items=560, interactions=3484,
    modalities={"text": 512, "vision": 512},
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CLIP, "reproduced"),
        (PAPERS_OWN, "reproduced"),
        ("text_features.npy, of unknown origin", "not comparable: text features .width 512. of text_features.npy, of"),
        ("text_features.npy, of unknown origin (its manifest belongs to other values)", "not comparable"),
        ("open_clip ViT-B-32 (laion2b_s34b_b79k)", "not comparable: text features .* the paper's are of open_clip"),
        ("open_clip ViT-B-32 (file mine.pt, said to be openai)", "not comparable"),
        ("RANDOM WEIGHTS, not a trained encoder: open_clip ViT-B-32", "not comparable: text .* RANDOM WEIGHTS"),
        ("TF-IDF + SVD width 512", "not comparable"),
        (None, "not comparable: text features .width 512. of unknown origin"),
    ],
)
def test_verdicts_go_by_proof_of_origin(source, expected):
    sources = {"vision": CLIP} if source is None else {"text": source, "vision": CLIP}
    made = MADE.model_copy(update={"sources": sources})
    interval = Interval(40.0, 50.0)
    assert re.match(expected, str(judge_value(44.12, "VBPR", "hr@50", 45.0, interval, made)))
    assert judge_value(44.12, "FedAvg", "hr@50", 45.0, interval, made).word == "reproduced"  # takes no features


def test_the_released_features_of_ku_are_known_by_their_hash():
    interval, unlabelled = Interval(40.0, 50.0), {"vision": "image_features.npy, of unknown origin"}
    (released,) = RELEASED_FEATURES
    ku = MADE.model_copy(update={"fingerprint": released, "sources": unlabelled})
    assert judge_value(44.12, "VBPR", "hr@50", 45.0, interval, ku).word == "reproduced"


@pytest.mark.skipif("FEDVLR_DATA" not in os.environ, reason="FEDVLR_DATA names no data root with the real data sets")
def test_the_hash_is_that_of_the_real_ku():
    ku = prepare("ku", Path(os.environ["FEDVLR_DATA"]))
    assert ku.fingerprint in RELEASED_FEATURES
    assert {features.source for features in ku.features.values()} == {PAPERS_OWN}
