"""Files of every format and depth: what is written is read again, and other programs agree about it."""

import ast
import io
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images import formats
from p2p_jax.images.resize import resize

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
LOSSLESS = [ending for ending in formats.WRITTEN if formats.is_lossless(ending)]
HELD = [
    (ending, dtype, channels)
    for ending in formats.EXTENSIONS
    for dtype in DTYPES
    for channels in (1, 2, 3, 4, 7)
    if formats.holds(ending, np.dtype(dtype), channels)
]
GEOREFERENCE = (
    (33550, 12, 3, (10.0, 10.0, 0.1 + 0.2)),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440_720.123_456_789, 3_751_320.0, 0.0)),
    (34735, 3, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32_633)),
    (34736, 12, 2, (298.257_223_563, 6_378_137.0)),
    (34737, 2, 30, "WGS 84 / UTM zone 33N|WGS 84|"),
)


def extremes(dtype, *shape, seed=0):
    """Return numbers over the whole range of a dtype; of floats negative, infinite and missing ones too."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        x = (rng.standard_normal(shape) * 100).astype(dtype)
        x.flat[:4] = np.nan, np.inf, -np.inf, -0.0
        return x
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    x.flat[:2] = limits.min, limits.max
    return x


def assert_same(found, expected):
    """Compare to the bit, dtype and byte order included."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def check_header(path, pixels, palette=None):
    header = formats.read_header(path)
    assert (header.height, header.width, header.channels) == pixels.shape
    assert (header.dtype, header.palette) == (pixels.dtype, palette is not None)
    return header


def smooth(channels):
    y, x = np.mgrid[:40, :48]
    return np.stack([(2 * x + 3 * y + 20 * c) % 200 + 20 for c in range(channels)], -1).astype(np.uint8) // 4 * 2 + 50


@pytest.mark.parametrize(("ending", "dtype", "channels"), [case for case in HELD if case[0] in LOSSLESS])
def test_what_is_written_is_read_again(ending, dtype, channels, tmp_path):
    path, x = tmp_path / "new" / f"x{ending}", extremes(dtype, 13, 9, channels)
    formats.write(path, x)
    stored = formats.read(path)
    assert_same(stored.pixels, x)
    assert stored.palette is None and stored.tags == ()
    check_header(path, x)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing left over


def test_what_formats_hold():
    counts = {ending: sum(case[0] == ending for case in HELD) for ending in formats.EXTENSIONS}
    everything = len(DTYPES) * 5
    assert counts == {
        ".avif": 0, ".bmp": 2, ".heic": 0, ".heif": 0, ".jfif": 2, ".jpe": 2, ".jpeg": 2, ".jpg": 2, ".npy": everything,
        ".npz": everything, ".png": 8, ".tif": everything, ".tiff": everything, ".webp": 3,
    }  # fmt: skip
    assert set(formats.WRITTEN) - set(LOSSLESS) == {".jfif", ".jpe", ".jpeg", ".jpg", ".webp"}


@pytest.mark.parametrize(("ending", "channels"), [(e, c) for e, _, c in HELD if not formats.is_lossless(e)])
def test_lossy_formats(ending, channels, tmp_path):
    path, x = tmp_path / f"x{ending}", smooth(channels)
    formats.write(path, x)
    found = formats.read(path).pixels
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.squeeze(found), np.asarray(image))
    check_header(path, found)
    if ending == ".webp" and channels == 1:
        assert found.shape[-1] == 3  # WebP knows no gray
    assert np.abs(found.astype(int) - x).mean() < 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_png_against_tensorflow(channels, tmp_path):
    x, path = extremes("uint16", 13, 9, channels), tmp_path / "x.png"
    formats.write(path, x)
    assert_same(tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy(), x)
    path.write_bytes(tf.io.encode_png(x[::-1]).numpy())
    assert_same(formats.read(path).pixels, np.ascontiguousarray(x[::-1]))
    assert check_header(path, x).mode == ""


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_deep_gray_against_pillow(ending, tmp_path):
    x, path = extremes("uint16", 13, 9, 1), tmp_path / f"x{ending}"
    Image.fromarray(x[..., 0]).save(path)
    assert_same(formats.read(path).pixels, x)
    formats.write(path, x // 2)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), x[..., 0] // 2)


def test_transparent_colour_of_a_deep_png_adds_no_channel(tmp_path):
    x, path = extremes("uint16", 13, 9, 3), tmp_path / "x.png"
    encoded, chunk = imagecodecs.png_encode(x), b"tRNS" + x[3, 3].astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(encoded[:33] + chunk + encoded[33:])
    assert_same(formats.read(path).pixels, x)
    check_header(path, x)


@pytest.mark.parametrize(
    "options",
    [
        dict(photometric="minisblack", planarconfig="separate"),
        dict(photometric="minisblack", planarconfig="separate", tile=(16, 16), compression="zlib", byteorder=">"),
        dict(imagej=True, metadata={"axes": "CYX"}),
        dict(ome=True, metadata={"axes": "CYX"}),
        dict(photometric="minisblack"),  # pages that nobody named
    ],
    ids=["planes", "tiles", "imagej", "ome", "pages"],
)
def test_tiff_with_bands_first(options, tmp_path):
    x, path = extremes("uint16", 5, 32, 40), tmp_path / "x.tif"
    tifffile.imwrite(path, x, **options)
    expected = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    assert_same(formats.read(path).pixels, expected)
    check_header(path, expected)


@pytest.mark.parametrize("compression", [None, "lzw", "packbits", "zstd", "lzma"])
def test_compressed_tiff(compression, tmp_path):
    x, path = extremes("float32", 32, 40, 2), tmp_path / "x.tif"
    options = dict(photometric="minisblack", planarconfig="contig", tile=(16, 16))
    tifffile.imwrite(path, x, compression=compression, **options)
    assert_same(formats.read(path).pixels, x)


@pytest.mark.parametrize(
    ("mode", "ours"), [("1", ""), ("L", ""), ("RGB", ""), ("RGBA", ""), ("CMYK", "CMYK"), ("F", "")]
)
def test_tiff_of_pillow(mode, ours, tmp_path):
    image, path = Image.fromarray(smooth(3)).convert(mode), tmp_path / "x.tif"
    image.save(path)
    expected = np.atleast_3d(np.asarray(image.convert("RGB") if mode == "CMYK" else image))
    assert_same(formats.read(path).pixels, expected.astype(np.uint8) * np.uint8(255) if mode == "1" else expected)
    assert formats.read_header(path).mode == ours


def test_tiff_as_others_see_it(tmp_path):
    x, path = extremes("uint8", 13, 9, 4), tmp_path / "x.tif"
    formats.write(path, x[..., :3])
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), x[..., :3])
    formats.write(path, x)
    with Image.open(path) as image:  # without the band that it does not know
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), x[..., :3])
    np.testing.assert_array_equal(tifffile.imread(path), x)


def test_white_is_zero(tmp_path):
    x, path = extremes("uint8", 13, 9), tmp_path / "x.tif"
    tifffile.imwrite(path, x, photometric="miniswhite")
    assert_same(formats.read(path).pixels, 255 - x[..., None])
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), 255 - x)


def test_overviews_and_masks_are_no_images(tmp_path):
    x, path = extremes("uint16", 64, 64, 4), tmp_path / "x.tif"
    options = dict(photometric="minisblack", planarconfig="contig", metadata=None)
    with tifffile.TiffWriter(path) as tif:
        tif.write(x, **options)
        tif.write(x[::2, ::2], subfiletype=1, **options)
        tif.write(x[..., 0] > 9, subfiletype=4, photometric="mask", metadata=None)
    assert_same(formats.read(path).pixels, x)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", None])
def test_stacks_are_refused(axes, tmp_path):
    x, path = extremes("uint8", 3, 32, 40), tmp_path / "x.tif"
    if axes:
        tifffile.imwrite(path, x, photometric="minisblack", metadata={"axes": axes})
    else:
        first, *others = (Image.fromarray(page) for page in x)
        first.save(path, save_all=True, append_images=others)
    for function in (formats.read, formats.read_header):
        with pytest.raises(InputError, match=r"x\.tif holds 3 x 32 x 40 numbers with the axes .YX"):
            function(path)


def test_georeference_and_resolution_are_kept(tmp_path):
    x, path, copy = extremes("uint16", 13, 9, 4), tmp_path / "x.tif", tmp_path / "copy.tif"
    tifffile.imwrite(
        path, x, photometric="minisblack", planarconfig="contig", metadata=None, resolution=(72.5, 300),
        resolutionunit="inch", extratags=[(*tag, True) for tag in GEOREFERENCE],
    )  # fmt: skip
    tags = formats.read(path).tags
    assert tags[: len(GEOREFERENCE)] == GEOREFERENCE and hash(tags)
    formats.write(copy, extremes("float32", 13, 9, 1), tags=tags)
    bands = 277
    assert [tag for tag in formats.read(copy).tags if tag[0] != bands] == [tag for tag in tags if tag[0] != bands]

    def raw(file):
        with tifffile.TiffFile(file) as tif:
            found = tif.pages.first.tags
            kept = {code: found[code] for code in [tag[0] for tag in GEOREFERENCE] + [282, 283, 296]}
            data = Path(file).read_bytes()
            size = {2: 1, 3: 2, 5: 8, 12: 8}
            return {
                code: (int(t.dtype), t.count, data[t.valueoffset : t.valueoffset + t.count * size[int(t.dtype)]])
                for code, t in kept.items()
            }

    assert raw(copy) == raw(path)
    formats.write(tmp_path / "x.npy", x, tags=tags)  # which has no place for them
    assert formats.read(tmp_path / "x.npy").tags == ()


@pytest.mark.parametrize("ending", formats.WITH_PALETTE)
def test_palettes(ending, tmp_path):
    path, colors, x = tmp_path / f"x{ending}", extremes("uint8", 12, 3), extremes("uint8", 13, 9, 1) % 12
    formats.write(path, x, palette=colors)
    stored = formats.read(path)
    assert_same(stored.pixels, x)
    assert_same(stored.palette[:12], colors)
    assert len(stored.palette) == (256 if ending.startswith(".tif") else 12)
    check_header(path, x, colors)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors[x[..., 0]])


def test_palette_of_few_bits_with_transparency(tmp_path):
    path, colors, x = tmp_path / "x.png", extremes("uint8", 3, 3), extremes("uint8", 13, 9) % 3
    image = Image.fromarray(x)
    image.putpalette(colors.tobytes())
    image.save(path, bits=2, transparency=1)
    stored = formats.read(path)
    assert_same(stored.pixels, x[..., None])
    assert_same(stored.palette[:3], colors)  # some versions of Pillow fill it up to four


def test_tiff_palette_of_eight_bits_in_sixteen(tmp_path):
    path, colors, x = tmp_path / "x.tif", extremes("uint8", 256, 3), extremes("uint8", 13, 9)
    tifffile.imwrite(path, x, photometric="palette", colormap=colors.T.astype(np.uint16))
    assert_same(formats.read(path).palette, colors)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("CMYK", 3)])
def test_modes_of_pillow(mode, channels, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.fromarray(smooth(3)).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.atleast_3d(np.asarray(image.convert("RGB") if mode == "CMYK" else image))
    expected = expected * np.uint8(255) if mode == "1" else expected
    assert_same(formats.read(path).pixels, expected)
    assert expected.shape[-1] == channels and check_header(path, expected).mode == mode


def test_arrays_of_other_orders_and_kinds(tmp_path):
    x = extremes("float32", 13, 9, 3)
    np.save(tmp_path / "x.npy", np.asfortranarray(x.astype(">f4")))
    assert_same(formats.read(tmp_path / "x.npy").pixels, x)
    check_header(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", depth=x[..., 0])
    assert_same(formats.read(tmp_path / "x.npz").pixels, np.ascontiguousarray(x[..., :1]))
    np.save(tmp_path / "x.npy", x[..., 0] > 0)
    mask = np.where(x[..., :1] > 0, np.uint8(255), np.uint8(0))
    assert_same(formats.read(tmp_path / "x.npy").pixels, mask)
    check_header(tmp_path / "x.npy", mask)


def test_more_bytes_than_an_array_has_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 3)))
    longer = (tmp_path / "x.npy").read_bytes() + b"123"
    (tmp_path / "x.npy").write_bytes(longer)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", longer)
    for ending, told in (("npy", "3 bytes too many are at its end"), ("npz", "there are more bytes at its end")):
        with pytest.raises(InputError, match=told):
            formats.read(tmp_path / f"x.{ending}")


def test_a_compressed_array_is_unpacked_piece_by_piece(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (900, 1000, 3), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", x)
    tracemalloc.start()
    found = formats.read(tmp_path / "x.npz").pixels
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.5 * x.nbytes
    assert_same(found, x)


UNFIT_ARRAYS = {
    "objects": (np.array([{}], object), "array of object"),
    "complex": (np.zeros((3, 3), complex), "array of complex128"),
    "stack": (np.zeros((2, 3, 3, 1)), r"array of shape \[2, 3, 3, 1\]"),
    "line": (np.zeros(3), r"array of shape \[3\]"),
    "nothing": (np.zeros((0, 3)), r"array of shape \[0, 3\]"),
}


@pytest.mark.parametrize("name", UNFIT_ARRAYS)
def test_arrays_that_are_no_images(name, tmp_path):
    array, message = UNFIT_ARRAYS[name]
    for function, ending in ((np.save, ".npy"), (np.savez, ".npz")):
        function(tmp_path / f"x{ending}", array)
        for read in (formats.read, formats.read_header):
            with pytest.raises(InputError, match=rf"x\{ending} holds an {message}"):
                read(tmp_path / f"x{ending}")


def test_two_arrays_are_no_image(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 3)), b=np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"x\.npz holds 2 arrays \(a, b\); an image must be one array"):
        formats.read(tmp_path / "x.npz")


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_one_thread_at_a_time_has_python_parse(ending, tmp_path, monkeypatch):
    """Before 3.11.8 it fails where two do so at once."""
    x = extremes("float32", 5, 4, 3)
    {".npy": np.save, ".npz": np.savez}[ending](tmp_path / f"x{ending}", x)
    parse, parsing, most = ast.literal_eval, [], []

    def slow(text):
        parsing.append(text)
        most.append(len(parsing))
        time.sleep(0.01)
        parsing.pop()
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", slow)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(read, tmp_path / f"x{ending}") for read in (formats.read, formats.read_header) * 4]
    assert most == [1] * 8
    assert_same(found[0].result().pixels, x)


def whole_files():
    """Return ``{name: bytes}`` of one file of every kind."""
    found = {}
    for ending, dtype, channels in HELD:
        if (channels, dtype) in {(3, "uint8"), (1, "uint8"), (4, "uint16"), (1, "float32")}:
            found[f"{dtype}-{channels}{ending}"] = extremes(dtype, 33, 31, channels)
    return found


@pytest.mark.parametrize("name", whole_files())
def test_damaged_files(name, tmp_path):
    path = tmp_path / name
    formats.write(path, whole_files()[name])
    content = path.read_bytes()
    for kept in (0, 3, 20, len(content) // 3, len(content) - len(content) // 5):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError) as caught:
            formats.read(path)
        assert str(caught.value).startswith(f"{path} cannot be read as an image (")
    path.write_bytes(b"no image, but text\n")
    with pytest.raises(InputError, match="cannot be read as an image .it is not a .* file"):
        formats.read_header(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_tiff_is_seen_in_its_header(compression, tmp_path):
    path = tmp_path / "x.tif"
    options = dict(photometric="minisblack", planarconfig="contig", compression=compression)
    tifffile.imwrite(path, extremes("uint16", 64, 64, 4), **options)
    path.write_bytes(path.read_bytes()[:-100])
    for function in (formats.read, formats.read_header):
        with pytest.raises(InputError, match=r"x\.tif cannot be read as an image .100 bytes are missing at its end"):
            function(path)


def test_missing_file_and_unknown_ending(tmp_path):
    for function in (formats.read, formats.read_header):
        with pytest.raises(InputError, match=r"x\.png cannot be read as an image .No such file"):
            function(tmp_path / "x.png")
        with pytest.raises(
            InputError, match=r"x\.gif cannot be read as an image: its ending must be one of \.avif, \.bmp"
        ):
            function(tmp_path / "x.gif")


def test_names_that_are_wrong(tmp_path):
    encoded = {}
    for kind in ("BMP", "JPEG", "PNG", "WebP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(smooth(3)).save(buffer, kind)
        encoded[kind] = buffer.getvalue()
    for kind, name, mend in [
        ("TIFF", "x.png", "rename it to .tif"), ("PNG", "x.tif", "rename it to .png"),
        ("JPEG", "x.npy", "rename it to .jpg"),
        ("GIF", "x.png", "convert it to PNG"),
    ]:  # fmt: skip
        (tmp_path / name).write_bytes(encoded[kind])
        for function in (formats.read, formats.read_header):
            with pytest.raises(InputError, match=rf"{name} is a {kind} file, but its name says otherwise; {mend}"):
                function(tmp_path / name)
    for kind in ("BMP", "JPEG", "PNG", "WebP"):  # these are mixed up everywhere, to no one's harm
        (tmp_path / "x.png").write_bytes(encoded[kind])
        with Image.open(tmp_path / "x.png") as image:
            np.testing.assert_array_equal(formats.read(tmp_path / "x.png").pixels, np.asarray(image))


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "colors", "message"),
    [
        ("x.jpg", "uint16", 3, 0, r"\.jpg cannot hold 3 channels of uint16; choose \.npy, \.npz, \.png, \.tif"),
        ("x.png", "float32", 1, 0, r"\.png cannot hold 1 channels of float32; choose \.npy, \.npz, \.tif"),
        ("x.png", "uint8", 5, 0, r"\.png cannot hold 5 channels"),
        ("x.tif", "complex64", 1, 0, "no format can"),
        ("x.gif", "uint8", 3, 0, "its ending must be one of"),
        ("x.jpg", "uint8", 1, 9, r"\.jpg cannot hold a palette; choose \.bmp, \.png, \.tif"),
        ("x.png", "uint8", 3, 9, r"pixels must be uint8 \[H, W, 1\] below that, not uint8 \[4, 4, 3\]"),
        ("x.png", "uint8", 1, 7, "palette of 7 colours .at most 256., pixels must be .* up to 7"),
    ],
)
def test_what_cannot_be_written(name, dtype, channels, colors, message, tmp_path):
    palette = np.zeros((colors, 3), np.uint8) if colors else None
    with pytest.raises(InputError, match=rf"{name} cannot be written: .*{message}"):
        formats.write(tmp_path / name, np.full((4, 4, channels), 7, dtype), palette=palette)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.tif"
    formats.write(path, smooth(3))

    def fail(tif, *args, **kwargs):
        tif.filehandle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(InputError, match=r"x\.tif cannot be written .No space left on device"):
        formats.write(path, smooth(3) // 2)
    assert_same(formats.read(path).pixels, smooth(3))
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]


@pytest.mark.parametrize(("name", "module"), [("x.tif", "tifffile"), ("x.png", "imagecodecs")])
def test_missing_libraries_are_named(name, module, tmp_path, monkeypatch):
    formats.write(tmp_path / name, extremes("uint16", 13, 9, 3))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=rf"needs {module}: pip install 'p2p_jax\[images\]'"):
        formats.read(tmp_path / name)


def test_files_are_read_in_parallel(tmp_path):
    images = {tmp_path / name: x for name, x in whole_files().items() if formats.is_lossless(Path(name).suffix)}
    for path, x in images.items():
        formats.write(path, x)
    with ThreadPoolExecutor(8) as pool:
        paths = list(images) * 5
        for path, stored in zip(paths, pool.map(formats.read, paths), strict=True):
            assert_same(stored.pixels, images[path])


@pytest.mark.skipif("P2P_JAX_TEST_DATA" not in os.environ, reason="needs real images")
def test_real_photographs(tmp_path):
    for path in sorted(Path(os.environ["P2P_JAX_TEST_DATA"], "facades", "train").iterdir())[:4]:
        with Image.open(path) as image:
            expected = np.asarray(image)
        assert_same(formats.read(path).pixels, expected)
        deep = expected.astype(np.uint16) * 257
        for ending in (".png", ".tif", ".npz"):
            formats.write(tmp_path / f"x{ending}", deep)
            assert_same(formats.read(tmp_path / f"x{ending}").pixels, deep)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_resize_keeps_the_dtype(dtype):
    x = np.linspace(-3e4 if dtype in ("int16", "float32") else 0, 200 if dtype == "uint8" else 3e4, 20 * 24 * 2)
    x = x.reshape(20, 24, 2).astype(dtype)
    found = resize(x, (10, 36))
    expected = tf.image.resize(x.astype(np.float32), (10, 36), "bicubic", antialias=True).numpy()
    assert found.dtype == x.dtype
    span = float(x.max()) - float(x.min())
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=span * 2e-5 if dtype == "float32" else 1.01)


def test_resize_of_labels_takes_the_nearest():
    x = extremes("uint8", 20, 24, 1)
    for size in ((10, 36), (31, 7), (40, 48)):
        expected = tf.image.resize(x, size, "nearest").numpy()
        np.testing.assert_array_equal(resize(x, size, nearest=True), expected)


@pytest.mark.parametrize(("bits", "packed"), [(2, b"\x1b"), (4, b"\x01\x2f")])
def test_small_gray_pngs_keep_their_numbers(tmp_path, bits, packed):
    """Pillow stretches 2 and 4 bits to 255, which would make other classes of labels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"\0" + packed)), chunk(b"IEND", b"")]
    path = tmp_path / "small.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    stored, most = formats.read(path), 2**bits - 1
    assert stored.pixels[0, :, 0].tolist() == ([0, 1, 2, 3] if bits == 2 else [0, 1, 2, 15])
    assert formats.read_header(path).palette
    shades = stored.palette[stored.pixels[..., 0]]
    np.testing.assert_array_equal(shades[..., 0], np.asarray(Image.open(path)))
    assert stored.palette[-1].tolist() == [255, 255, 255] and len(stored.palette) == most + 1
