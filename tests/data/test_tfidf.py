"""Features computed by TF-IDF are known by their recipe."""

from dataclasses import replace

import numpy as np

from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.tfidf import tfidf_recipe


def test_computed_features_are_known_by_their_recipe():
    """ml-100k is the same data set on every processor, though the last bits of its text features may differ."""
    data = prepare("ml-100k")
    assert data.fingerprint.startswith("883346812c64")
    text = data.features["text"]
    rounded = replace(text, matrix=text.matrix * np.float32(1 + 1e-6))
    assert rounded.fingerprint == text.fingerprint
    assert replace(text, recipe="tfidf_svd/2").fingerprint != text.fingerprint
    given = replace(text, recipe="")
    assert replace(given, matrix=rounded.matrix).fingerprint != given.fingerprint
    assert tfidf_recipe(["a b", "c"]) != tfidf_recipe(["a", "b c"]) and tfidf_recipe(["a"], 3) != tfidf_recipe(["a"], 4)
