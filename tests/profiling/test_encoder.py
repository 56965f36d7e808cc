"""The measuring itself: everything is counted, nothing is left behind, and the parts fit into the whole."""

from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="the extra clip (Pillow) is not installed")
import numpy as np  # noqa: E402
import torch  # noqa: E402

from fedvlr_plugin.errors import DataError  # noqa: E402
from fedvlr_plugin.features.encoder import TEXT, VISION, Encoder  # noqa: E402
from fedvlr_plugin.profiling.encoder import images_in, made_up_images, measure_images, measure_texts  # noqa: E402


class Counting(Encoder):
    modalities = frozenset({VISION, TEXT})

    def __init__(self):
        self.images, self.texts = [], []

    def facts(self):
        return {"encoder": "counting", "model": "1", "random_weights": True}

    def preprocess(self, image):
        return torch.tensor([float(image.width), float(image.height)])

    def encode_images(self, batch):
        self.images.append(len(batch))
        return batch.numpy()

    def encode_texts(self, texts):
        self.texts.append(len(texts))
        return np.ones((len(texts), 2), dtype=np.float32)


def test_every_image_and_title_is_measured_once_after_a_warm_up(tmp_path):
    encoder = Counting()
    paths = made_up_images(tmp_path, 7, size=(40, 60))
    found = measure_images(encoder, paths, batch_size=3, workers=2)
    assert encoder.images == [3, 3, 3, 1] and found.rows == 7
    assert 0 < found.encoder_s + found.waiting_s < found.total_s and found.decoding_s > 0
    assert found.per_second == pytest.approx(7 / found.total_s)
    words = measure_texts(encoder, ["a", "b", "c"], batch_size=2)
    assert encoder.texts == [2, 2, 1] and words.rows == 3 and words.decoding_s == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{k}.jpg" for k in range(7)]


def test_no_images_is_said(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        images_in(tmp_path, 3)
    with pytest.raises(DataError, match="no images in"):
        images_in(Path("nowhere"), 3)
