"""Every kind of odd image is converted or named, and none of them is fatal."""

import io
import struct
import zlib

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="the extra clip (Pillow) is not installed")

from fedvlr_plugin.data.images import decode, find_images, tensors  # noqa: E402


def photo(size=(40, 30), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write(path, image, **options):
    image.save(path, **options)
    return path


def bomb(path, width=50_000, height=50_000):
    """A PNG of a few bytes that says it is 2.5 gigapixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_plain_image_is_untouched(tmp_path):
    found = decode(write(tmp_path / "a.png", photo()))
    assert found.problem is None and found.note is None
    assert np.array_equal(np.asarray(found.image), np.asarray(photo()))


def test_unusual_images_are_converted_and_noted(tmp_path):
    cmyk = decode(write(tmp_path / "a.jpg", photo().convert("CMYK")))
    palette = decode(write(tmp_path / "b.png", photo().convert("P")))
    gif = decode(write(tmp_path / "c.gif", photo(), save_all=True, append_images=[photo(seed=1)]))
    grey = decode(write(tmp_path / "d.png", photo().convert("L")))
    assert [f.note for f in (cmyk, palette, gif, grey)] == ["CMYK", "palette", "animated", "mode L"]
    assert all(f.image.mode == "RGB" and f.problem is None for f in (cmyk, palette, gif, grey))
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(decode(write(tmp_path / "e.png", clear)).image).min() == 255
    deep = Image.fromarray(np.full((4, 4), 51_200, dtype=np.uint16))
    assert np.asarray(decode(write(tmp_path / "f.png", deep)).image).tolist()[0][0] == [200, 200, 200]


def test_unreadable_images_are_named(tmp_path):
    buffer = io.BytesIO()
    photo((400, 300)).save(buffer, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    png = io.BytesIO()
    photo().save(png, format="PNG")
    (tmp_path / "broken.png").write_bytes(png.getvalue()[:60] + b"\0" * 40 + png.getvalue()[100:])
    assert decode(tmp_path / "cut.jpg").problem == "truncated"
    assert decode(tmp_path / "text.jpg").problem.startswith("corrupt")
    assert decode(tmp_path / "empty.jpg").problem == "empty file"
    assert decode(tmp_path / "broken.png").image is None
    assert decode(tmp_path / "nowhere.jpg").problem == "missing" and decode(None).problem == "missing"
    assert decode(bomb(tmp_path / "bomb.png")).problem.startswith("huge")
    assert decode(bomb(tmp_path / "big.png", 9000, 9000)).problem == "huge (9000 x 9000 pixels, 60,000,000 are allowed)"
    assert decode(write(tmp_path / "thin.png", photo((1000, 3)))).problem == "too long and thin (1000 x 3 pixels)"
    assert decode(tmp_path).problem == "missing"


@pytest.mark.filterwarnings("ignore")
def test_no_damage_to_a_file_is_fatal(tmp_path):
    """Pillow's readers let IndexError (GIF), TypeError (TIFF) and others through."""
    source = np.random.default_rng(2)
    frames = {"save_all": True, "append_images": [photo(seed=1).convert("P")]}
    plain = []
    for kind, image, options in (("GIF", photo().convert("P"), frames), ("TIFF", photo(), {})):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        plain.append(buffer.getvalue())
    file, problems = tmp_path / "x", set()
    for k in range(600):
        content = np.frombuffer(plain[k % 2], dtype=np.uint8).copy()
        head = min(len(content), 200 if k % 4 < 3 else len(content))
        where = source.integers(0, head, 5)
        content[where] = source.integers(0, 256, 5)
        file.write_bytes(content.tobytes())
        found = decode(file)
        assert (found.image is None) == (found.problem is not None)
        problems.add(found.problem)
    assert {"corrupt (index out of range)", "corrupt (Missing dimensions)"} & problems


def test_images_are_found_by_token(tmp_path):
    for name in ("a.jpg", "b.PNG", "a.txt", "1.5.webp"):
        (tmp_path / name).write_bytes(b"x")
    assert [p and p.name for p in find_images(tmp_path, ["b", "c", "a", "1.5"])] == ["b.PNG", None, "a.jpg", "1.5.webp"]


def test_threads_keep_the_order(tmp_path):
    paths = [write(tmp_path / f"{k}.png", Image.new("RGB", (3, 3), (k, 0, 0))) for k in range(40)]
    paths.insert(7, None)
    found = [None if t is None else t for t, _ in tensors(paths, lambda image: image.getpixel((0, 0))[0], 4, 5)]
    assert found == [*range(7), None, *range(7, 40)]
