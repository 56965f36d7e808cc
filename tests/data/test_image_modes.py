"""Every mode that Pillow opens ends as the right RGB, or is listed with a reason that does not call it corrupt."""

import struct
import unicodedata

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="the extra clip (Pillow) is not installed")

from fedvlr_plugin.data.images import decode, find_images  # noqa: E402
from fedvlr_plugin.errors import DataError  # noqa: E402

RAMP = np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def tiff(path, array, kind=1, order="<", bits=None, white=0):
    """An uncompressed grey TIFF by hand; `kind` 1 unsigned, 2 signed, 3 float; `white` 1: 0 means white."""
    array = array.astype(array.dtype.newbyteorder(order))
    height, width = array.shape
    entries = [
        (256, width),
        (257, height),
        (258, bits or 8 * array.itemsize),
        (259, 1),
        (262, 1 - white),
        (273, None),
        (277, 1),
    ]
    entries += [(278, height), (279, array.nbytes), (339, kind)]
    start = 8 + 2 + 12 * len(entries) + 4
    body = struct.pack(order + "H", len(entries))
    for tag, value in entries:
        body += struct.pack(order + "HHII", tag, 4, 1, start if value is None else value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(mark + struct.pack(order + "I", 8) + body + b"\0\0\0\0" + array.tobytes())
    return path


def grey(found):
    """The one channel of a grey image in RGB."""
    assert found.problem is None, found.problem
    array = np.asarray(found.image)
    assert found.image.mode == "RGB" and (array == array[..., :1]).all()
    return array[..., 0]


@pytest.mark.parametrize("order", "<>")
def test_16_bits_of_both_orders_keep_their_upper_8(tmp_path, order):
    values = RAMP.astype(np.uint16) * 256 + 255
    assert (grey(decode(tiff(tmp_path / "a.tif", values, order=order))) == RAMP).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype, kind", [(np.int32, 2), (np.uint32, 1), (np.int16, 2), (np.float32, 3)])
@pytest.mark.parametrize("factor, offset", [(1, 0), (3, 0), (100, 0), (100, 500)])
def test_deep_greys_and_floats_are_scaled_by_their_own_range(tmp_path, order, dtype, kind, factor, offset):
    found = decode(tiff(tmp_path / "a.tif", (RAMP.astype(np.int64) * factor + offset).astype(dtype), kind, order))
    if found.image is None:  # a mode that this Pillow has no reader for
        assert found.problem.startswith("not supported")
    else:
        assert (grey(found) == RAMP).all()


@pytest.mark.parametrize("values, level", [(0.5, 128), (7.0, 7), (300.0, 255), (-1.0, 0), (np.inf, None)])
def test_floats_of_one_value_and_values_that_are_not_finite(tmp_path, values, level):
    array = np.full((4, 4), values, dtype=np.float32)
    found = decode(tiff(tmp_path / "a.tif", array, 3))
    if level is None:
        assert found.problem == "nothing to see (no finite value)"
    else:
        assert (grey(found) == level).all()
    array[:] = np.linspace(-1e38, 3e38, 16).reshape(4, 4)
    array[0, 0] = np.nan
    shown = grey(decode(tiff(tmp_path / "b.tif", array, 3)))
    assert shown[0, 0] == 0 and shown[-1, -1] == 255 and len(set(shown.ravel().tolist())) == 15


def test_12_bits_and_a_scale_from_white_to_black(tmp_path):
    """12-bit greys, two in three bytes, use 12 of 16 bits; in a scale from white to black 0 is white."""
    packed = np.zeros((8, 256 * 3 // 2), dtype=np.uint8)
    values = RAMP.astype(np.int64) * 16 + 15
    packed[:, 0::3] = values[:, 0::2] >> 4
    packed[:, 1::3] = (values[:, 0::2] & 15) << 4 | values[:, 1::2] >> 8
    packed[:, 2::3] = values[:, 1::2] & 255
    file = tiff(tmp_path / "a.tif", packed, bits=12)
    content = file.read_bytes()
    file.write_bytes(content.replace(struct.pack("<HHII", 256, 4, 1, 384), struct.pack("<HHII", 256, 4, 1, 256)))
    assert (grey(decode(file)) == RAMP).all()
    for array, kind in ((RAMP, 1), (RAMP.astype(np.uint16) * 256, 1), (RAMP.astype(np.float32), 3)):
        assert (grey(decode(tiff(tmp_path / "b.tif", array, kind, white=1))) == 255 - RAMP).all()


def test_32_bits_without_a_sign(tmp_path):
    found = decode(tiff(tmp_path / "a.tif", RAMP.astype(np.uint32) * 16_843_009))  # up to 2^32 - 1
    assert (grey(found) == RAMP).all()


def test_several_pictures_in_one_file_are_said(tmp_path):
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP[:, ::-1].copy())]
    for suffix, said in (("tif", "several pictures, the first one is used"), ("gif", "animated")):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        assert decode(tmp_path / f"a.{suffix}").note == said


def test_small_integers_of_32_bits_are_not_black(tmp_path):
    assert (grey(decode(tiff(tmp_path / "a.tif", RAMP.astype(np.int32), 2))) == RAMP).all()


WRITABLE = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"],
    "tif": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B"],
    "jpg": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "webp": ["L", "P", "RGB", "RGBA", "HSV"],
    "gif": ["1", "L", "P", "RGB", "RGBA"],
    "bmp": ["1", "L", "P", "RGB", "RGBA"],
}
COLOURS = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], axis=-1)


@pytest.mark.parametrize("suffix, mode", [(suffix, mode) for suffix, modes in WRITABLE.items() for mode in modes])
def test_what_pillow_writes_in_any_mode_comes_back(tmp_path, suffix, mode):
    colours = Image.fromarray(COLOURS)
    if mode.startswith("I;16"):
        order = ">" if mode == "I;16B" else "<"
        image = Image.frombytes(mode, (256, 8), (RAMP.astype(np.int64) * 256).astype(f"{order}u2").tobytes())
    elif mode in ("LA", "PA"):
        image = colours.convert({"LA": "L", "PA": "P"}[mode]).convert(mode)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (256, 8), np.stack([RAMP, RAMP * 0, RAMP * 0], axis=-1).tobytes())
    else:
        image = colours.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    found = decode(tmp_path / f"a.{suffix}")
    if found.image is None:
        assert not found.problem.startswith("corrupt") and mode in ("LAB", "PA"), found.problem
        return
    levels = np.asarray(found.image).astype(int)
    if mode.startswith("I;16"):
        wanted = RAMP[..., None].astype(int)
    elif mode in ("L", "LA", "1", "I"):
        wanted = np.asarray(image.convert("L")).astype(int)[..., None]
    elif mode == "F":  # stretched to the whole range
        grey_levels = np.asarray(image).astype(float)
        wanted = ((grey_levels - grey_levels.min()) / (grey_levels.max() - grey_levels.min()) * 255)[..., None]
    elif mode == "LAB":  # lightness, not linear: black to white without a colour
        assert np.ptp(levels, axis=-1).max() <= 12 and levels[0, 0].max() < 10 and levels[0, -1].min() > 245
        return
    else:
        wanted = COLOURS.astype(int)
    loose = {"jpg": 4, "webp": 8, "gif": 12}.get(suffix, 1) + (20 if mode in ("P", "PA") else 2 * (mode == "YCbCr"))
    assert np.abs(levels - wanted).mean() < loose


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_turns_the_image_upright(tmp_path, tag, suffix):
    corners = np.zeros((32, 64, 3), dtype=np.uint8)
    corners[:16, :32], corners[:16, 32:], corners[16:, :32] = 250, 170, 90
    turn = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[tag]  # the method that undoes the tag's own
    stored = Image.fromarray(corners)
    if turn is not None:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = tag
    stored.save(tmp_path / f"a.{suffix}", exif=exif)
    found = decode(tmp_path / f"a.{suffix}")
    assert found.image.size == (64, 32)
    shown = np.asarray(found.image)[:, :, 0].astype(int)
    assert [abs(shown[8, 16] - 250) < 9, abs(shown[8, 48] - 170) < 9, abs(shown[24, 16] - 90) < 9] == [True] * 3


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\0\0")
    assert decode(tmp_path / "a.jpg").problem is None


def test_a_transparent_grey_of_16_bits_is_white(tmp_path):
    values = np.full((4, 4), 1000, dtype=np.uint16)
    values[0] = 51_200
    Image.fromarray(values).save(tmp_path / "a.png", transparency=1000)
    shown = grey(decode(tmp_path / "a.png"))
    assert (shown[0] == 200).all() and (shown[1:] == 255).all()


@pytest.mark.parametrize(
    "start, said",
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0", "not supported (format AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not supported (format HEIC"),
        (b"8BPS\0\1", "not supported (format PSD"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not supported (format SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "corrupt (a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "corrupt (a web page"),
    ],
)
def test_what_is_another_format_is_named(tmp_path, start, said):
    (tmp_path / "a.jpg").write_bytes(start + b"\0" * 40)
    assert decode(tmp_path / "a.jpg").problem.startswith(said)


def test_names_in_another_unicode_form_and_hidden_files(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (tmp_path / f"{apart}.jpg").write_bytes(b"x")
    (tmp_path / f"._{apart}.jpg").write_bytes(b"x")
    (tmp_path / "._b.jpg").write_bytes(b"x")
    assert [p and p.name for p in find_images(tmp_path, [composed, apart, "b", "._b"])] == [f"{apart}.jpg"] * 2 + [
        None
    ] * 2
    (tmp_path / f"{composed}.jpg").write_bytes(b"y")  # both: each token has its own
    assert [p.name for p in find_images(tmp_path, [composed, apart])] == [f"{composed}.jpg", f"{apart}.jpg"]
    (tmp_path / f"{composed}.png").write_bytes(b"y")
    with pytest.raises(DataError, match="all for item"):
        find_images(tmp_path, [composed])
