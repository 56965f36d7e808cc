"""Read images of any kind; a problem with a file is reported and never stops the run.

Readable but unusual images are converted (see `data.rgb`), animated ones by their first frame. Missing, corrupt,
truncated and huge files give no image (the limit is `MAX_PIXELS`, since a decompression bomb would fill the memory).
Pillow is imported on the first call (extra `clip`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.data.reading.encodings import what_it_is
from fedvlr_plugin.data.reading.names import composed, visible
from fedvlr_plugin.data.rgb import NoPixels, to_rgb
from fedvlr_plugin.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_PIXELS = 60_000_000
MAX_RATIO = 100
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NOT_SUPPORTED = (
    "not available",
    "unsupported",
    "not supported",
    "not implemented",
    "unknown pixel mode",
    "too large",
    "unrecognized",
)
OTHERS = (
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    *((b"P%d" % k, "PNM") for k in range(1, 8)),
)
MOVING = ("GIF", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Decoded:
    """The result of reading one image.

    Attributes:
        image: in RGB; None if it cannot be used.
        problem: why there is no image; None if there is one.
        note: what was unusual about a readable image; None if nothing was.
    """

    image: Image | None
    problem: str | None = None
    note: str | None = None


def decode(path: Path | None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Read one image; no content of the file raises an error.

    Args:
        path: of the file; None if the item has no image.
        max_pixels: width times height at most.
    """
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
            several = getattr(image, "n_frames", 1) > 1
            image.load()
            mode, size = image.mode, image.size
            try:
                rgb, note = to_rgb(image)
            except NoPixels as error:
                return Decoded(None, f"nothing to see ({error})")
            except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
                return Decoded(None, f"mode {mode} cannot be turned into RGB here ({_reason(error)})")
            if rgb.size != size and rgb.size != size[::-1]:
                return Decoded(None, f"mode {mode} cannot be turned into RGB here")
            if several:
                note = "animated" if image.format in MOVING else "several pictures, the first one is used"
            return Decoded(rgb, None, note)
    except UnidentifiedImageError:
        return Decoded(None, _unidentified(path))
    except Image.DecompressionBombError:
        return Decoded(None, f"huge ({max_pixels:,} pixels are allowed)")
    except Exception as error:  # noqa: BLE001 (a damaged GIF gives IndexError, a TIFF TypeError, and so on)
        reason = _reason(error)
        if "truncated" in reason:
            return Decoded(None, "truncated")
        if any(sign in reason.lower() for sign in NOT_SUPPORTED):
            return Decoded(None, f"not supported ({reason})")
        return Decoded(None, f"corrupt ({reason})")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _unidentified(path: Path) -> str:
    """Return why Pillow cannot identify a file: another format, an unusual variant of a known one, or no image."""
    with path.open("rb") as stream:
        start = stream.read(512)
    if meaning := what_it_is(start):
        return f"corrupt ({meaning.partition(';')[0]})"
    if start[4:8] == b"ftyp":
        return f"not supported (format {start[8:12].decode('latin-1').strip().upper()}; save it as JPEG or PNG)"
    for magic, name in OTHERS:
        if start.startswith(magic):
            return f"not supported (format {name}; save it as JPEG or PNG)"
    if b"<svg" in start:
        return "not supported (format SVG; save it as JPEG or PNG)"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "not supported (a kind of TIFF that Pillow cannot read, or a damaged one)"
    return "corrupt (no known image format)"


def find_images(folder: Path, tokens: Sequence[str]) -> list[Path | None]:
    """Find the image file of each item, `<token>.jpg` or another suffix of `SUFFIXES`.

    The exact name has priority over the same name in another Unicode form. Hidden files (`._name`) are ignored.

    Args:
        folder: of the images.
        tokens: of the items.

    Returns:
        A path for each token, in the same order; None if there is no file.

    Raises:
        DataError: there are two files for one token.
    """
    exact: dict[str, list[Path]] = {}
    alike: dict[str, list[Path]] = {}
    for path in visible(folder.iterdir()):
        if path.suffix.casefold() in SUFFIXES:
            exact.setdefault(path.stem, []).append(path)
            alike.setdefault(composed(path.stem), []).append(path)
    out: list[Path | None] = []
    for token in tokens:
        files = exact.get(token) or alike.get(composed(token), [])
        if len(files) > 1:
            names = " and ".join(path.name for path in files)
            raise DataError(
                f"the folder of images '{folder.name}' has {names}, all for item '{token}'; keep one of them"
            )
        out.append(files[0] if files else None)
    return out


def tensors(
    paths: Sequence[Path | None],
    preprocess: Callable[[Image], torch.Tensor],
    workers: int,
    ahead: int,
) -> Iterator[tuple[torch.Tensor | None, Decoded]]:
    """Yield decoded and preprocessed images, in order, computed by threads.

    Args:
        paths: of the images; None if an item has none.
        preprocess: converts an RGB image to the model's input.
        workers: number of threads.
        ahead: how many images are decoded in advance at most.

    Yields:
        The model's input, None without an image, and the result of decoding, without the image itself.
    """

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
                first = waiting.pop(0)
                for path in islice(source, 1):
                    waiting.append(pool.submit(work, path))
                yield first.result()
        finally:
            for future in waiting:
                future.cancel()
