"""The interface of encoders: they turn texts or images into unit vectors and describe how these were made.

Encoders are chosen by name from a registry: `clip`, `tfidf`, `sentence-transformers`, `timm`, and those of installed
packages (entry-point group `fedvlr_plugin.encoders`).
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
    """A model that encodes texts, images or both.

    Attributes:
        modalities: what it can encode: `vision`, `text` or both.
        needs_all: whether it needs all texts in one call, since it is fitted on them; such a run cannot be resumed.
        default_batch: items in a call by default.
    """

    modalities: ClassVar[frozenset[str]]
    needs_all: ClassVar[bool] = False
    default_batch: ClassVar[int] = 64

    @abstractmethod
    def facts(self) -> dict[str, str | int | float | bool]:
        """Return model, weights and their sha256, preprocessing and versions; the key `random_weights` is required."""

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        """Encode n texts as unit vectors `[n, m]`, float32; a text without content gives zeros."""
        raise ConfigError(f"this encoder makes no text features, only {', '.join(sorted(self.modalities))}")

    def preprocess(self, image: Image) -> torch.Tensor:
        """Convert an RGB image to the model's input tensor; called from several threads."""
        raise ConfigError(f"this encoder makes no vision features, only {', '.join(sorted(self.modalities))}")

    def encode_images(self, batch: torch.Tensor) -> FloatMatrix:
        """Encode n stacked outputs of `preprocess` as unit vectors `[n, m]`, float32."""
        raise ConfigError(f"this encoder makes no vision features, only {', '.join(sorted(self.modalities))}")

    @property
    def label(self) -> str:
        """A one-line description for manifests, tables and results; it names random weights as such."""
        facts = self.facts()
        name = f"{facts['encoder']} {facts['model']}"
        if facts["random_weights"]:
            return f"RANDOM WEIGHTS, not a trained encoder: {name}"
        return f"{name} ({facts['weights']})" if facts.get("weights") else name


EncoderFactory = Callable[..., Encoder]
ENCODERS: Registry[EncoderFactory] = Registry("encoder", "fedvlr_plugin.encoders")


def unit_rows(matrix: npt.NDArray[np.float32]) -> FloatMatrix:
    """Scale vectors `[n, m]` to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: FloatMatrix = (matrix / np.where(lengths < 1e-12, 1.0, lengths)).astype(np.float32)
    return unit
