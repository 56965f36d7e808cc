"""Encode images and texts with CLIP models of open_clip, on CPU, or on GPU with autocast.

The paper uses ViT-B-32 with OpenAI's weights. These were trained with the QuickGELU activation, which open_clip's
plain `ViT-B-32` does not use; it is set here from the pretrained tag, as every vector would be wrong without it. A
weights file may be a state dict, safetensors, or OpenAI's TorchScript archive; `pretrained` then names its origin.
Random weights are used only on request, and are labelled.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fedvlr_plugin.compat import prepare_torchvision
from fedvlr_plugin.data.item_features import FloatMatrix
from fedvlr_plugin.devices import pick_device
from fedvlr_plugin.errors import ConfigError, DataError, missing_extra, unknown_name
from fedvlr_plugin.features.encoder import ENCODERS, TEXT, VISION, Encoder
from fedvlr_plugin.features.huggingface import cached, no_way_there, quiet
from fedvlr_plugin.files import sha256_of

if TYPE_CHECKING:
    import torch
    from open_clip.model import CLIP
    from PIL.Image import Image

CHOICES = (
    "give a local file with --weights FILE, take another encoder with --encoder tfidf, or put precomputed "
    "<modality>_features.npy beside the data set"
)


@ENCODERS.register("clip")
class OpenClipEncoder(Encoder):
    """An open_clip model.

    Args:
        model: name of an open_clip model, or a JSON file with a model configuration of open_clip.
        pretrained: origin of the weights: one of open_clip's tags for the model.
        weights: a local file with the weights; None downloads them.
        allow_random_weights: use random weights (seed 0) instead, for tests only.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        MissingExtraError: open_clip is not installed.
        UnknownNameError: there is no such model or tag.
        ConfigError: both a weights file and random weights are asked for.
        DataError: the weights cannot be found or downloaded, or do not fit the model.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({VISION, TEXT})

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str = "openai",
        weights: Path | None = None,
        *,
        allow_random_weights: bool = False,
        device: str = "auto",
    ) -> None:
        try:
            with quiet():  # it imports timm, which imports wandb, which prints warnings
                prepare_torchvision()
                import open_clip
        except ImportError:
            raise missing_extra("open_clip_torch", "clip", "The CLIP encoder") from None
        if allow_random_weights and weights is not None:
            raise ConfigError(
                f"random weights and the weights file '{weights.name}' exclude each other; leave out one of them"
            )
        if weights is not None and not weights.is_file():
            raise DataError(f"the weights file '{weights}' is not there; {CHOICES}")
        if model.endswith(".json"):
            open_clip.add_model_config(model)
            model = Path(model).stem
        if model not in open_clip.list_models():
            near = difflib.get_close_matches(model, open_clip.list_models(), n=5, cutoff=0.5) or ["ViT-B-32"]
            raise unknown_name("open_clip model", model, near, "All of them: open_clip.list_models().")
        tags = open_clip.list_pretrained_tags_by_model(model)
        tag = {} if allow_random_weights else open_clip.get_pretrained_cfg(model, pretrained) or {}
        if not tag and weights is None and not allow_random_weights:
            raise unknown_name(f"set of weights for {model}", pretrained, tags)
        self.device = pick_device(device)
        path = None if allow_random_weights else weights or _fetch(tag, model, pretrained)
        self._model, self._preprocess = _build(model, tag, path)
        self._model.to(self.device).eval()
        self._tokenizer = _tokenizer(model)
        digest = "none" if path is None else sha256_of(path)
        self._facts: dict[str, str | int | float | bool] = {
            "encoder": "open_clip",
            "model": model,
            "weights": "random, seed 0" if path is None else whose(path, digest, tag, pretrained, weights is not None),
            "weights_file": "none" if path is None else path.name,
            "weights_sha256": digest,
            "random_weights": path is None,
            "quick_gelu": bool(tag.get("quick_gelu", False)),
            "preprocessing": " ".join(str(self._preprocess).split()),
            "precision": "autocast float16" if self.device.startswith("cuda") else "float32",
            "open_clip": version("open_clip_torch"),
            "torch": version("torch"),
            "torchvision": version("torchvision"),
            "pillow": version("pillow"),
        }

    def facts(self) -> dict[str, str | int | float | bool]:
        return dict(self._facts)

    def preprocess(self, image: Image) -> torch.Tensor:
        return self._preprocess(image)

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        return self._run(self._encode_tokens, self._tokenizer(list(texts)))

    def encode_images(self, batch: torch.Tensor) -> FloatMatrix:
        return self._run(self._model.encode_image, batch)

    def _encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode tokens like open_clip's `encode_text`, but without the padding after the longest text of the batch.

        Titles fill about a third of the 77 positions. With a causal mask, and the vector read at the end-of-text token,
        later positions have no effect and are not computed. Models with another text tower are encoded in full.
        """
        import torch
        from open_clip.model import CLIP

        model = self._model
        used = int(tokens.argmax(dim=-1).max()) + 1
        plain = type(model) is CLIP and model.text_pool_type == "argmax" and model.attn_mask is not None
        if not plain or used == tokens.shape[1]:
            full: torch.Tensor = model.encode_text(tokens)
            return full
        tokens = tokens[:, :used]
        kind = model.transformer.get_cast_dtype()
        hidden = model.token_embedding(tokens).to(kind) + model.positional_embedding[:used].to(kind)
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:used, :used]))
        pooled: torch.Tensor = hidden[range(len(tokens)), tokens.argmax(dim=-1)]
        projection = model.text_projection
        if projection is None:
            return pooled
        short: torch.Tensor = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
        return short

    def _run(self, encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> FloatMatrix:
        import torch

        kind = self.device.split(":")[0]
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.float16, enabled=kind == "cuda"):
            vectors = encode(batch.to(self.device, non_blocking=True))
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        matrix: FloatMatrix = unit.cpu().numpy()
        return matrix


def whose(path: Path, sha256: str, tag: Mapping[str, object], pretrained: str, given: bool) -> str:
    """Name a set of weights for the manifest.

    Args:
        path: the weights file.
        sha256: of the file.
        tag: open_clip's facts about the pretrained tag.
        pretrained: name of the tag.
        given: whether the user passed the file.

    Returns:
        The tag's name, if open_clip downloaded the file or the publisher's address contains its hash; otherwise the
        name of the file, since its origin is not verified.
    """
    if not given or (tag and sha256 in str(tag.get("url", ""))):
        return pretrained
    return f"file {path.name}, said to be {pretrained}" if tag else f"file {path.name}"


def _fetch(tag: dict[str, object], model: str, pretrained: str) -> Path:
    """Return the weights file of a tag, from the local cache or downloaded; raise `DataError` if neither works."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    from open_clip.pretrained import download_pretrained

    try:
        with quiet():
            if entry := str(tag.get("hf_hub", "")):
                repository, _, name = entry.rpartition("/")
                local = cached(repository, [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])
                if local is not None:
                    return local
                if why := no_way_there():
                    raise ConnectionError(why)
            return Path(download_pretrained(tag))
    except Exception as error:  # noqa: BLE001 (hub, http, ssl, disk: each library has errors of its own)
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"the weights '{pretrained}' of {model} cannot be had ({why}); {CHOICES}") from None


def _build(model: str, tag: dict[str, object], path: Path | None) -> tuple[CLIP, Callable[[Image], torch.Tensor]]:
    """Create the model with the tag's activation and preprocessing, and load its weights."""
    import open_clip
    import torch

    options = {f"image_{key}": tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if tag.get(key)}
    with quiet():  # open_clip warns of random weights, which are intended or replaced below
        with torch.random.fork_rng():
            torch.manual_seed(0)
            built, _, preprocess = open_clip.create_model_and_transforms(
                model, pretrained=None, force_quick_gelu=bool(tag.get("quick_gelu", False)), **options
            )
        if path is not None:
            _load(built, path)
    return built, preprocess


def _load(built: CLIP, path: Path) -> None:
    import pickle

    import torch
    from open_clip.factory import load_checkpoint

    try:
        if _is_torchscript(path):
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
            derived = {name for name, _ in built.named_buffers()} - set(built.state_dict())
            for key in ("input_resolution", "context_length", "vocab_size", *derived):
                state.pop(key, None)
            built.load_state_dict(
                {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
            )
        else:
            load_checkpoint(built, str(path), strict=True)
    except pickle.UnpicklingError:  # torch's message advises unsafe loading, which would run code from the file
        raise DataError(
            f"the weights file '{path.name}' cannot be loaded into this model: it holds no plain weights; {CHOICES}"
        ) from None
    except Exception as error:  # noqa: BLE001 (unpickling, zip, safetensors and shape errors have no common base)
        why = " ".join(str(error).split())[:200]
        raise DataError(f"the weights file '{path.name}' cannot be loaded into this model: {why}; {CHOICES}") from None


def _is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive: a zip with `constants.pkl`, which `torch.load` refuses."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def _tokenizer(model: str) -> Callable[[list[str]], torch.Tensor]:
    import open_clip

    try:
        tokenizer: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(model)
        return tokenizer
    except Exception as error:  # noqa: BLE001 (a hub tokenizer without network)
        raise DataError(
            f"the tokenizer of {model} cannot be had ({' '.join(str(error).split())[:160]}); {CHOICES}"
        ) from None
