"""Encoders besides CLIP: TF-IDF + SVD (built in), and sentence-transformers and timm (if installed)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedvlr_plugin.data.item_features import FloatMatrix
from fedvlr_plugin.data.tfidf import tfidf_svd
from fedvlr_plugin.devices import pick_device
from fedvlr_plugin.errors import ConfigError, DataError, MissingExtraError, did_you_mean
from fedvlr_plugin.features.encoder import ENCODERS, TEXT, VISION, Encoder, unit_rows
from fedvlr_plugin.features.huggingface import cached, no_way_there, quiet
from fedvlr_plugin.files import sha256_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")


@ENCODERS.register("tfidf")
class TfidfEncoder(Encoder):
    """TF-IDF + SVD fitted on the titles; deterministic, without weights or network.

    Args:
        model: width of the vectors, a whole number from 1, as text.
        device: not used.

    Raises:
        ConfigError: the width is not a whole number from 1.

    >>> encoder = TfidfEncoder(model="2")
    >>> vectors = encoder.encode_texts(["Toy Story", "A Toy Story", "Heat"])
    >>> vectors.shape, encoder.label
    ((3, 2), 'TF-IDF + SVD width 2')
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])  # vectors have length 1, so this compares cosines
    True
    """

    modalities: ClassVar[frozenset[str]] = frozenset({TEXT})
    needs_all: ClassVar[bool] = True

    def __init__(self, model: str = "64", device: str = "auto") -> None:
        if not model.isdigit() or int(model) < 1:
            raise ConfigError(f"the model of the encoder tfidf is its width, a whole number from 1, got '{model}'")
        self.width = int(model)

    def facts(self) -> dict[str, str | int | float | bool]:
        versions = {name: version(name) for name in ("scikit-learn", "scipy")}
        return {"encoder": "TF-IDF + SVD", "model": f"width {self.width}", "random_weights": False, **versions}

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        return tfidf_svd(texts, self.width)


@ENCODERS.register("sentence-transformers")
class SentenceEncoder(Encoder):
    """A sentence-transformers model.

    Args:
        model: name of the model, or its folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        DataError: the model cannot be found or downloaded.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({TEXT})

    def __init__(self, model: str = "all-MiniLM-L6-v2", device: str = "auto") -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise MissingExtraError(
                "the encoder sentence-transformers needs the package of that name: pip install sentence-transformers"
            ) from None
        try:
            with quiet():
                self._model = SentenceTransformer(model, device=pick_device(device))
        except OSError as error:
            raise DataError(f"the model '{model}' cannot be had ({' '.join(str(error).split())[:160]})") from None
        self._name = Path(model).name

    def facts(self) -> dict[str, str | int | float | bool]:
        installed = version("sentence-transformers")
        return {
            "encoder": "sentence-transformers",
            "model": self._name,
            "random_weights": False,
            "sentence-transformers": installed,
        }

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        return unit_rows(np.asarray(self._model.encode(list(texts), show_progress_bar=False), dtype=np.float32))


@ENCODERS.register("timm")
class TimmEncoder(Encoder):
    """The pooled features of a timm model, with the model's own preprocessing.

    Args:
        model: name of the model.
        weights: a local file with the weights; None downloads them.
        allow_random_weights: use random weights (seed 0) instead, for tests only.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: timm has no model of that name.
        DataError: the weights cannot be found or downloaded.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({VISION})

    def __init__(
        self,
        model: str = "resnet50",
        weights: Path | None = None,
        *,
        allow_random_weights: bool = False,
        device: str = "auto",
    ) -> None:
        from fedvlr_plugin.compat import prepare_torchvision

        try:
            with quiet():
                prepare_torchvision()
                import timm
        except ImportError:
            raise MissingExtraError("the encoder timm needs the package of that name: pip install timm") from None
        if not timm.is_model(model):
            near = did_you_mean(model, timm.list_models())
            raise ConfigError(f"timm has no model '{model}'.{near} See timm.list_models('*{model[:4]}*')")
        import torch

        if weights is not None and not weights.is_file():
            raise DataError(f"the weights file '{weights}' is not there")
        try:
            pretrained = weights is None and not allow_random_weights
            with quiet(), torch.random.fork_rng():
                torch.manual_seed(0)
                entry = timm.get_pretrained_cfg(model)
                repository = entry.hf_hub_id if entry is not None and pretrained else None
                if repository and cached(repository, TIMM_FILES) is None and (missing := no_way_there()):
                    raise ConnectionError(missing)
                file = "" if weights is None else str(weights)
                self._model = timm.create_model(model, pretrained=pretrained, num_classes=0, checkpoint_path=file)
        except Exception as error:  # noqa: BLE001 (hub, http and unpickling errors have no common base)
            why = " ".join(str(error).split())[:160]
            raise DataError(
                f"the weights of timm's '{model}' cannot be had ({why}); give a local file with --weights FILE"
            ) from None
        self.device = pick_device(device)
        self._model.to(self.device).eval()
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        settings = resolve_model_data_config(self._model)  # type: ignore[no-untyped-call]
        self._preprocess = create_transform(**settings, is_training=False)
        self._facts: dict[str, str | int | float | bool] = {
            "encoder": "timm",
            "model": model,
            "weights": "random, seed 0" if allow_random_weights else "timm's" if weights is None else weights.name,
            "weights_sha256": "none" if weights is None else sha256_of(weights),
            "random_weights": allow_random_weights,
            "preprocessing": " ".join(str(self._preprocess).split()),
            "timm": version("timm"),
            "torch": version("torch"),
        }

    def facts(self) -> dict[str, str | int | float | bool]:
        return dict(self._facts)

    def preprocess(self, image: Image) -> torch.Tensor:
        tensor: torch.Tensor = self._preprocess(image)
        return tensor

    def encode_images(self, batch: torch.Tensor) -> FloatMatrix:
        import torch

        with torch.inference_mode():
            return unit_rows(self._model(batch.to(self.device)).float().cpu().numpy())
