"""What an encoder is: texts or images in, one unit vector each out, and a full account of where they come from.

Encoders are chosen by name from a registry (`clip`, `tfidf`, `sentence-transformers`, `timm`, and whatever the
entry-point group `fedvlr_plugin.encoders` adds).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.item_features import FloatMatrix
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.registry import Registry

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

VISION, TEXT = "vision", "text"


class Encoder(ABC):
    """One model.

    Attributes:
        modalities: what it can encode, of `vision` and `text`.
        needs_all: it must see all texts in one call (a model fitted on them); not resumable.
        default_batch: rows per call where nothing else is asked for.
    """

    modalities: ClassVar[frozenset[str]]
    needs_all: ClassVar[bool] = False
    default_batch: ClassVar[int] = 64

    @abstractmethod
    def facts(self) -> dict[str, str | int | float | bool]:
        """Model, weights and their sha256, preprocessing, versions; `random_weights` is always there."""

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        """`[n, m]` float32, rows of length 1 (0 for a text without content)."""
        raise ConfigError(f"this encoder makes no text features, only {', '.join(sorted(self.modalities))}")

    def preprocess(self, image: Image) -> torch.Tensor:
        """One RGB image as the model's input tensor; called from several threads."""
        raise ConfigError(f"this encoder makes no vision features, only {', '.join(sorted(self.modalities))}")

    def encode_images(self, batch: torch.Tensor) -> FloatMatrix:
        """`[n, m]` float32, rows of length 1, from stacked inputs of `preprocess`."""
        raise ConfigError(f"this encoder makes no vision features, only {', '.join(sorted(self.modalities))}")

    @property
    def label(self) -> str:
        """One line for manifests, tables and results; random weights are called so."""
        facts = self.facts()
        name = f"{facts['encoder']} {facts['model']}"
        if facts["random_weights"]:
            return f"RANDOM WEIGHTS, not a trained encoder: {name}"
        return f"{name} ({facts['weights']})" if facts.get("weights") else name


EncoderFactory = Callable[..., Encoder]
ENCODERS: Registry[EncoderFactory] = Registry("encoder", "fedvlr_plugin.encoders")


def unit_rows(matrix: npt.NDArray[np.float32]) -> FloatMatrix:
    """Rows divided by their length; a zero row stays zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: FloatMatrix = (matrix / np.where(lengths < 1e-12, 1.0, lengths)).astype(np.float32)
    return unit
