"""Compute text features without a neural network: TF-IDF of words, reduced by a truncated SVD, scaled to length 1.

The result is deterministic on one machine (exact SVD by ARPACK with a fixed start vector; signs fixed by the largest
entry); other processors may round differently. A change of the numbers needs a new version in `tfidf_recipe`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fedvlr_plugin.data.item_features import FloatMatrix
from fedvlr_plugin.data.reading.titles import undo_entities
from fedvlr_plugin.errors import DataError


def tfidf_svd(texts: Sequence[str], width: int = 64) -> FloatMatrix:
    """Compute unit vectors of texts.

    Args:
        texts: n texts; one without a word gives a zero vector.
        width: of the vectors at most, at least 1.

    Returns:
        `[n, k]`, float32; k is below `width` if the vocabulary or n is small.

    Raises:
        DataError: no text has a word.
    """
    from scipy.sparse.linalg import svds
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [undo_entities(text) for text in texts]
    try:
        matrix = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit_transform(texts)
    except ValueError:
        raise DataError("no text has a single word, so there is nothing to make TF-IDF features of") from None
    k = min(width, min(matrix.shape) - 1)
    if k < 1:
        return np.asarray(matrix.todense(), dtype=np.float32)
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix.astype(np.float64), k=k, v0=start)
    order = np.argsort(-values)
    reduced = left[:, order] * values[order]
    largest = reduced[np.abs(reduced).argmax(0), np.arange(k)]
    reduced *= np.where(largest < 0, -1.0, 1.0)
    lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
    unit: FloatMatrix = (reduced / np.where(lengths < 1e-12, 1.0, lengths)).astype(np.float32)
    return unit


def tfidf_recipe(texts: Sequence[str], width: int = 64) -> str:
    """Describe what `tfidf_svd(texts, width)` depends on, in one line: its version, the width, and sha256 of the texts."""
    digest = hashlib.sha256("\0".join(map(undo_entities, texts)).encode()).hexdigest()
    return f"tfidf_svd/1 width {width} of {len(texts)} texts {digest}"
