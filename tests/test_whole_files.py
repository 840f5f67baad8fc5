"""Files that were cut and closed again, so that nothing but their pixels tells it, are refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from p2p_jax.data import checks, load
from p2p_jax.data.inspect import inspection
from p2p_jax.data.stream.sources import make_source
from p2p_jax.errors import InputError
from p2p_jax.images import formats, png
from support.configs import small_config
from support.images import load as load_image
from support.images import noise, save
from support.streams import take

CUT = "rows at its end are missing: it was cut short"
JPEGS = {
    "plain": {},
    "all colours": {"subsampling": 0},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts of rows": {"restart_marker_rows": 1},
    "restarts of blocks": {"restart_marker_blocks": 3},
}


def picture(height, width, mode="RGB"):
    """Draw what JPEGs keep: waves and a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 80 * np.sin(x / (7 + c)) * np.cos(y / (9 - c)) for c in range(3)], -1)
    return Image.fromarray((waves + noise(height, width, 3, low=0, high=20)).astype(np.uint8)).convert(mode)


def jpeg_of(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def cut_jpeg(whole, share):
    """Leave a share of the last scan of a JPEG, and close it."""
    start = whole.rindex(b"\xff\xda") + 12
    return whole[: start + int((len(whole) - start) * share)].rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_was_cut(kind, mode, tmp_path):
    path = tmp_path / "x.jpg"
    for height, width in ((96, 128), (97, 121), (106, 129)):
        whole = jpeg_of(picture(height, width, mode), **JPEGS[kind])
        path.write_bytes(whole)
        assert formats.read(path).pixels.shape[:2] == (height, width)
        for share in (0.05, 0.5, 0.9):
            path.write_bytes(cut_jpeg(whole, share))
            assert formats.seems_whole(path)
            if kind == "progressive" and mode == "CMYK":  # black ink is nowhere, and the last scan is of nothing else
                continue
            with pytest.raises(InputError, match=rf"x\.jpg cannot be read as an image \({CUT}\)"):
                formats.read(path)


def test_whole_jpegs_with_flat_ends_are_read(tmp_path):
    for value in (0, 128, 255):
        for size in ((8, 8), (16, 16), (17, 40), (64, 50)):
            pixels = np.asarray(picture(*size)).copy()
            pixels[size[0] // 2 :] = value
            for options in JPEGS.values():
                (tmp_path / "x.jpg").write_bytes(jpeg_of(Image.fromarray(pixels), **options) + b"trailing")
                assert formats.read(tmp_path / "x.jpg").pixels.shape == (*size, 3)


def test_pictures_of_several_views_are_read(tmp_path):
    views = [picture(40, 56), picture(20, 28)]
    views[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=views[1:])
    np.testing.assert_array_equal(formats.read(tmp_path / "x.jpg").pixels, load_image(tmp_path / "x.jpg"))


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def png_of(width, height, bits, colour_type, *, interlaced=False, missing=0):
    """Make a PNG of noise whose packed pixels lack bytes at their end; all of its chunks are in order."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    rows = []
    for left, top, across, down in png._PASSES if interlaced else [(0, 0, 1, 1)]:
        columns = len(range(left, width, across))
        length = 1 + -(-columns * channels * bits // 8)
        rows += [b"\0" + noise(length - 1, seed=i).tobytes() for i in range(len(range(top, height, down))) if columns]
    packed = b"".join(rows)
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    chunks = [chunk(b"IHDR", head)] + ([chunk(b"PLTE", bytes(768))] if colour_type == 3 else [])
    chunks += [chunk(b"IDAT", zlib.compress(packed[: len(packed) - missing])), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("bits", "colour_type"), [(8, 0), (8, 2), (8, 3), (8, 4), (8, 6), (1, 0), (4, 0), (16, 0), (16, 2), (16, 6)]
)
def test_a_png_that_lacks_rows(interlaced, bits, colour_type, tmp_path):
    path = tmp_path / "x.png"
    for width, height in ((30, 20), (7, 9), (1, 2)):
        path.write_bytes(png_of(width, height, bits, colour_type, interlaced=interlaced))
        assert formats.read(path).pixels.shape[:2] == (height, width)
        row = 1 + -(-width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type] * bits // 8)
        for missing in (1, row, row * height // 2):
            path.write_bytes(png_of(width, height, bits, colour_type, interlaced=interlaced, missing=missing))
            with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
                formats.read(path)
    if bits < 16 and not interlaced:
        path.write_bytes(png_of(30, 20, bits, colour_type, missing=5 * (1 + 30 * bits)))
        with pytest.raises(InputError, match=r"x\.png cannot be read"):
            formats.read(path)


def test_black_rows_are_rows(tmp_path):
    for pixels in (np.zeros((9, 7, 3), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((8, 8), bool)):
        Image.fromarray(pixels).save(tmp_path / "x.png")
        assert not formats.read(tmp_path / "x.png").pixels.any()


def folder_with_a_cut_file(root, ending, contents):
    for i in range(4):
        for side in "AB":
            save(root / f"train{side}" / f"{i}.jpg", np.asarray(picture(32, 32)))
    (root / "trainA" / "2.jpg").unlink()
    (root / "trainA" / f"2{ending}").write_bytes(contents)
    return small_config(
        data__source="folders", data__dir=str(root), data__val_split="", data__direction="AtoB", data__resident=False
    )


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_cut_file_is_named_before_training_and_by_inspect(ending, tmp_path):
    contents = cut_jpeg(jpeg_of(picture(32, 32)), 0.5) if ending == ".jpg" else png_of(32, 32, 8, 2, missing=7 * 97)
    config = folder_with_a_cut_file(tmp_path, ending, contents)
    with pytest.raises(InputError, match=rf"trainA/2\{ending} cannot be read as an image \({CUT}\)"):
        make_source(config.data, "train")
    assert [error for error in inspection.inspect(config).errors if CUT in error and f"trainA/2{ending}" in error]


@pytest.mark.slow
def test_a_cut_file_that_was_not_looked_at_stops_the_stream_by_name(tmp_path, monkeypatch):
    config = folder_with_a_cut_file(tmp_path, ".jpg", cut_jpeg(jpeg_of(picture(32, 32)), 0.5))
    monkeypatch.setattr(checks, "_faults_inside", lambda path, kinds: [])
    with pytest.raises(InputError, match=rf"2\.jpg cannot be read as an image \({CUT}\)"):
        take(load(config).train(0), 4)


@pytest.mark.parametrize("size", [3_000, 3_000_000])
def test_a_png_with_a_large_profile_of_colours(size, tmp_path):
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = plain.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    profile = struct.pack(">I", len(named) + size) + named[4:] + noise(size).tobytes()
    pixels = noise(20, 30, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png", icc_profile=profile)
    assert formats.read_header(tmp_path / "x.png").profile
    found = formats.read(tmp_path / "x.png")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.profile == profile and np.abs(found.in_srgb().pixels.astype(int) - pixels).max() <= 1
