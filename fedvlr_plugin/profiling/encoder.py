"""Measure the speed of an encoder: images and titles in a second, and the time of decoding and of the model.

Decoding runs in threads next to the model, so it takes extra time only when the model waits for it: `waiting_s` should
stay small.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedvlr_plugin.data.images import SUFFIXES, tensors
from fedvlr_plugin.data.reading.names import visible
from fedvlr_plugin.errors import DataError
from fedvlr_plugin.features.encoder import Encoder
from fedvlr_plugin.features.extraction import extract_images, extract_texts


@dataclass(frozen=True)
class Speed:
    """One measurement; seconds are wall clock.

    Attributes:
        what: `images` or `titles`.
        rows: number of items.
        total_s: in total, files and manifest included.
        encoder_s: in the model.
        waiting_s: in which the model waits for input.
        decoding_s: of decoding and preprocessing without the model, with the same threads; 0 for titles.
    """

    what: str
    rows: int
    total_s: float
    encoder_s: float
    waiting_s: float
    decoding_s: float

    @property
    def per_second(self) -> float:
        """Items in a second, in total."""
        return self.rows / self.total_s


def made_up_images(folder: Path, count: int, size: tuple[int, int] = (500, 750), seed: int = 0) -> list[Path]:
    """Write JPEGs of the size and smoothness of posters, for measurements without real images.

    Args:
        folder: for the images.
        count: number of images.
        size: width and height in pixels.
        seed: of the random numbers.
    """
    from PIL import Image

    source = np.random.default_rng(seed)
    out = []
    for k in range(count):
        coarse = source.integers(0, 256, (30, 20, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=88)
        path = folder / f"{k}.jpg"
        path.write_bytes(buffer.getvalue())
        out.append(path)
    return out


def images_in(folder: Path, most: int) -> list[Path]:
    """Return the first `most` images of a folder by name; raise `DataError` if there is none."""
    files = visible(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise DataError(f"no images in '{folder}'")
    return files[:most]


def measure_images(encoder: Encoder, paths: Sequence[Path], batch_size: int, workers: int | None = None) -> Speed:
    """Encode all images once after a warm-up batch, and then decode them again without the model.

    Args:
        encoder: of images.
        paths: of the images.
        batch_size: images in a call of the encoder.
        workers: threads that decode; None for one for each core, at most 16.
    """
    threads = workers if workers is not None else min(16, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        warm = [
            tensor
            for tensor, _ in tensors(paths[:batch_size], encoder.preprocess, threads, batch_size)
            if tensor is not None
        ]
        if warm:
            import torch

            encoder.encode_images(torch.stack(warm))
        tokens = [str(k) for k in range(len(paths))]
        extraction = extract_images(encoder, tokens, list(paths), Path(scratch), batch_size=batch_size, workers=threads)
        start = time.perf_counter()
        for _ in tensors(list(paths), encoder.preprocess, threads, max(2 * batch_size, 2 * threads)):
            pass
        decoding = time.perf_counter() - start
    return Speed("images", extraction.items, extraction.total_s, extraction.encoder_s, extraction.input_s, decoding)


def measure_texts(encoder: Encoder, titles: Sequence[str], batch_size: int) -> Speed:
    """Encode all titles once after a warm-up batch.

    Args:
        encoder: of texts.
        titles: to encode.
        batch_size: titles in a call of the encoder.
    """
    encoder.encode_texts(list(titles[:batch_size]))
    tokens = [str(k) for k in range(len(titles))]
    with tempfile.TemporaryDirectory() as scratch:
        named = dict(zip(tokens, titles, strict=True))
        extraction = extract_texts(encoder, tokens, named, Path(scratch), batch_size=batch_size)
    return Speed("titles", extraction.items, extraction.total_s, extraction.encoder_s, 0.0, 0.0)
