"""Reads images that may be anything: a problem is counted and named, never fatal.

Readable but unusual images are converted: CMYK, palette and transparent ones to RGB (transparency on white), animated
ones by their first frame. Missing, corrupt, truncated and huge ones (more than `MAX_PIXELS`: a decompression bomb would
fill the memory) give no image. Pillow is imported when called (extra `clip`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_PIXELS = 60_000_000
MAX_RATIO = 100
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Decoded:
    """An RGB image, or why there is none; `note` says what was unusual about a readable one."""

    image: Image | None
    problem: str | None = None
    note: str | None = None


def decode(path: Path | None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Reads one image; `None` for a path means that the item has none. Never raises for what the file holds."""
    from PIL import Image, UnidentifiedImageError

    if path is None or not path.is_file():
        return Decoded(None, "missing")
    if path.stat().st_size == 0:
        return Decoded(None, "empty file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                return Decoded(None, f"huge ({image.width} x {image.height} pixels, {max_pixels:,} are allowed)")
            if max(image.size) > MAX_RATIO * min(image.size):  # resizing its short side would blow up the long one
                return Decoded(None, f"too long and thin ({image.width} x {image.height} pixels)")
            note = "animated" if getattr(image, "n_frames", 1) > 1 else None
            image.load()
            if image.mode != "RGB":
                note = note or {"P": "palette", "CMYK": "CMYK"}.get(image.mode, f"mode {image.mode}")
            return Decoded(_rgb(image), None, note)
    except UnidentifiedImageError:
        return Decoded(None, "corrupt (no known image format)")
    except Image.DecompressionBombError:
        return Decoded(None, f"huge ({max_pixels:,} pixels are allowed)")
    except Exception as error:  # noqa: BLE001 (a damaged GIF gives IndexError, a TIFF TypeError, and so on)
        truncated = "truncated" in str(error)
        return Decoded(
            None, "truncated" if truncated else f"corrupt ({' '.join(str(error).split())[:80] or type(error).__name__})"
        )


def _rgb(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode == "RGB":
        return image.copy()
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        layered = image.convert("RGBA")
        white = Pillow.new("RGBA", layered.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(white, layered).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits: convert() would clip everything above 255
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    return image.convert("RGB")


def find_images(folder: Path, tokens: Sequence[str]) -> list[Path | None]:
    """The image of each token, `<token>.jpg` or another suffix, in the order of the tokens; None where there is none."""
    found = {path.name: path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES}
    by_stem: dict[str, Path] = {}
    for name in sorted(found):
        by_stem.setdefault(found[name].stem, found[name])
    return [by_stem.get(token) for token in tokens]


def tensors(
    paths: Sequence[Path | None],
    preprocess: Callable[[Image], torch.Tensor],
    workers: int,
    ahead: int,
) -> Iterator[tuple[torch.Tensor | None, Decoded]]:
    """Decoded and preprocessed images in order, made by threads that stay at most `ahead` images in front."""

    def work(path: Path | None) -> tuple[torch.Tensor | None, Decoded]:
        decoded = decode(path)
        tensor = None if decoded.image is None else preprocess(decoded.image)
        return tensor, Decoded(None, decoded.problem, decoded.note)

    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="decode") as pool:
        source = iter(paths)
        waiting: list[Future[tuple[torch.Tensor | None, Decoded]]] = [
            pool.submit(work, p) for p in islice(source, ahead)
        ]
        try:
            while waiting:
                done = waiting.pop(0)
                for path in islice(source, 1):
                    waiting.append(pool.submit(work, path))
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()
