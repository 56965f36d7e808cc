"""Convert an image of any Pillow mode to RGB: alpha on white, high bit depths scaled, rotated as EXIF says.

Channels of 8 bits are not changed. 16-bit greys of both byte orders keep their upper 8 bits. 32-bit integers beyond
0..255 and floats are scaled by their own range, since the files do not define which value is white. Pillow is imported
on the first call (extra `clip`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

ORIENTATION = 0x0112
_NAMES = {"P": "palette", "PA": "palette", "CMYK": "CMYK", "I": "32 bits a pixel", "F": "floating point"}


class NoPixels(Exception):
    """The image is valid but has no pixel to show; the message says why."""


def to_rgb(image: Image) -> tuple[Image, str | None]:
    """Convert an image to RGB as it is meant to be seen.

    Args:
        image: loaded, of any mode.

    Returns:
        A new RGB image, and what was unusual (None for plain RGB).

    Raises:
        NoPixels: a float image has no finite value.
        ValueError: Pillow has no conversion for the mode.
        OSError: Pillow has no conversion for the mode.
    """
    mode, turn = image.mode, _orientation(image)
    key = image.info.get("transparency")
    bits, unsigned, white_is_zero = _tiff_facts(image)
    grey: npt.NDArray[np.float64]
    note: str | None
    if mode.startswith("I;16"):
        grey = _grey_of(np.asarray(image).astype(np.int64), 2 ** (bits - 8) if 8 < bits < 16 else 256)
        note = "16 bits a pixel"
    elif mode == "I":
        values = np.asarray(image).astype(np.int64)
        values = values % 2**32 if unsigned else values  # Pillow keeps 32 bits with a sign
        # older releases of Pillow give 16-bit PNG in this mode
        grey = _grey_of(values, 256 if image.format == "PNG" else None)
        note = _NAMES[mode]
    elif mode == "F":
        grey, note = _scaled(np.asarray(image).astype(np.float64)), _NAMES[mode]
    if mode[0] in "IF":
        grey = 255 - grey if white_is_zero else grey
        if isinstance(key, int) and mode != "F":  # one grey is declared transparent
            grey = np.where(np.asarray(image).astype(np.int64) == key, 255.0, grey)
        rgb: Image = _from_grey(grey)
    elif mode == "RGB" and key is None:
        rgb, note = image.copy(), None
    elif key is not None or mode in ("RGBA", "LA", "PA", "La", "RGBa") or _palette_with_alpha(image):
        rgb, note = _on_white(image), _NAMES.get(mode, f"mode {mode}")
    else:
        rgb, note = image.convert("RGB"), _NAMES.get(mode, f"mode {mode}")
    if turn is not None:
        rgb, note = rgb.transpose(turn), note or "turned as EXIF says"
    return rgb, note


def _orientation(image: Image) -> Transpose | None:
    """Return the transposition that makes the image upright; None if it is, or if EXIF cannot be read."""
    from PIL.Image import Transpose

    try:
        tag = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 (damaged EXIF gives struct.error, SyntaxError, TypeError and so on)
        return None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(tag) if isinstance(tag, int) else None


def _on_white(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode == "La":
        image = image.convert("LA")
    layered = image.convert("RGBA")
    white = Pillow.new("RGBA", layered.size, (255, 255, 255, 255))
    return Pillow.alpha_composite(white, layered).convert("RGB")


def _palette_with_alpha(image: Image) -> bool:
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _tiff_facts(image: Image) -> tuple[int, bool, bool]:
    """Return for a TIFF the bits of a sample (0 if unknown), whether it is unsigned, and whether 0 means white.

    Pillow handles the last one up to 8 bits only.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0, False, False
    bits, form = (_first(tags.get(tag)) for tag in (258, 339))
    return bits or 0, bits == 32 and form in (None, 1), tags.get(262) == 0


def _first(value: object) -> int | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _grey_of(values: npt.NDArray[np.int64], step: int | None) -> npt.NDArray[np.float64]:
    """Convert integers to 0..255: divide by `step`, or, if it is None, scale by their range unless they fit 8 bits."""
    if step is not None:
        return np.clip(values // step, 0, 255).astype(np.float64)
    if 0 <= int(values.min()) and int(values.max()) <= 255:
        return values.astype(np.float64)
    return _scaled(values.astype(np.float64))


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale values from their own range to 0..255; values that are not finite become 0."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise NoPixels("no finite value")
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        level = 255.0 * low if 0 <= low <= 1 else float(np.clip(low, 0, 255))
        return np.full(values.shape, level)
    with np.errstate(over="ignore", invalid="ignore"):
        share = (values / 2 - low / 2) / (high / 2 - low / 2)  # halves, since the range may exceed the largest float
    return np.asarray(np.clip(np.nan_to_num(share, nan=0.0, posinf=0.0, neginf=0.0), 0, 1) * 255.0)


def _from_grey(grey: npt.NDArray[np.float64]) -> Image:
    from PIL import Image as Pillow

    levels = np.rint(grey).astype(np.uint8)
    return Pillow.fromarray(np.ascontiguousarray(np.repeat(levels[..., None], 3, axis=2)))
