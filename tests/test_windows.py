"""TIFFs of which a few rows at a time are read and written, beside tifffile, which reads and writes them whole."""

import itertools
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.images import formats, windows
from support.images import noise

pytest.importorskip("imagecodecs")
LAYOUTS = {
    "strips": {"rowsperstrip": 10},
    "one strip": {"rowsperstrip": 83},
    "tiles": {"tile": (32, 16)},
    "planes": {"rowsperstrip": 10, "planarconfig": "separate"},
    "planes in one strip": {"rowsperstrip": 83, "planarconfig": "separate"},
    "planes of tiles": {"tile": (32, 16), "planarconfig": "separate"},
}


def assert_rows(path, stored):
    """Read a file in windows of several heights, going down, and some rows again."""
    height = len(stored.pixels)
    with windows.open_rows(path) as file:
        assert file is not None and file.size == stored.pixels.shape[:2]
        assert (file.tags, file.profile) == (stored.tags, stored.profile)
        for ends in ([0, height], [0, 7, 20, height], [0, 5, height - 1, height], [3, 9]):
            found = [file.read(*pair) for pair in itertools.pairwise(ends)]
            pixels = np.concatenate([part.pixels for part in found])
            assert pixels.dtype == stored.pixels.dtype
            np.testing.assert_array_equal(pixels, stored.pixels[ends[0] : ends[-1]])
            for part in found:
                np.testing.assert_equal(part.nodata, stored.nodata)
            if stored.valid is None:
                assert all(part.valid is None for part in found)
            else:
                valid = np.concatenate([part.valid for part in found])
                np.testing.assert_array_equal(valid, stored.valid[ends[0] : ends[-1]])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rows_of_every_layout(tmp_path, monkeypatch, dtype, compression, layout):
    monkeypatch.setattr(windows, "_LONG_STRIP", 1000)
    options = LAYOUTS[layout]
    for channels, order in itertools.product((1, 3, 4), "<>"):
        pixels = (np.random.RandomState(0).rand(83, 61, channels) * 200).astype(dtype)
        if channels == 1 and "planarconfig" in options:
            continue
        planes = pixels.transpose(2, 0, 1) if "planarconfig" in options else pixels
        predictor = compression in ("zlib", "lzw") and dtype != "float32"
        more = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite(
            tmp_path / "image.tif",
            planes if channels > 1 else planes[..., 0],
            byteorder=order,
            compression=compression,
            predictor=predictor,
            metadata=None,
            photometric="rgb" if channels > 1 and dtype != "float32" else "minisblack",
            **(more | options),
        )
        stored = formats.read(tmp_path / "image.tif")
        np.testing.assert_array_equal(stored.pixels, pixels)
        assert_rows(tmp_path / "image.tif", stored)


RARE = {
    "bands in pages": (noise(3, 40, 30), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "bands in compressed pages": (noise(3, 40, 30), {"ome": True, "metadata": {"axes": "CYX"}, "compression": "zlib"}),
    "bits": (noise(40, 30) > 99, {}),
    "compressed bits": (noise(40, 30) > 99, {"compression": "zlib", "rowsperstrip": 9}),
    "white is zero": (noise(40, 30), {"photometric": "miniswhite"}),
    "JPEG in tiles": (noise(64, 48, 3), {"photometric": "ycbcr", "compression": "jpeg", "tile": (32, 32)}),
    "JPEG in strips": (noise(64, 48, 3), {"photometric": "ycbcr", "compression": "jpeg", "rowsperstrip": 16}),
    "BigTIFF": (noise(64, 48, 3), {"photometric": "rgb", "bigtiff": True, "rowsperstrip": 16}),
    "predictor of floats": (noise(64, 48).astype("f4"), {"compression": "zlib", "predictor": 3, "rowsperstrip": 16}),
    "signed, the other order": (noise(64, 48).astype("i4"), {"byteorder": ">"}),
}


@pytest.mark.parametrize("kind", RARE)
def test_rows_of_rarer_files(tmp_path, kind):
    pixels, options = RARE[kind]
    tifffile.imwrite(tmp_path / "image.tif", pixels, **options)
    assert_rows(tmp_path / "image.tif", formats.read(tmp_path / "image.tif"))


def test_rows_of_what_gdal_writes(tmp_path):
    """Sparse files, masks, numbers for what is unknown, bands apart and together."""
    rasterio = pytest.importorskip("rasterio")
    kinds = [
        {"count": 3, "dtype": "uint8", "compress": "deflate", "interleave": "pixel", "nodata": 7, "sparse_ok": True},
        {"count": 4, "dtype": "uint16", "compress": "lzw", "interleave": "band", "nodata": 0},
        {"count": 2, "dtype": "uint16", "compress": "zstd", "interleave": "pixel"},
        {"count": 3, "dtype": "uint8", "interleave": "band"},
        {"count": 1, "dtype": "float32", "compress": "deflate", "nodata": -9999.0},
    ]
    for i, kind in enumerate(kinds):
        block = {"tiled": True, "blockxsize": 32, "blockysize": 16} if i < 3 else {"tiled": False}
        place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5e6, 10, 10)}
        profile = {"driver": "GTiff", "height": 100, "width": 90, **kind, **block, **place}
        pixels = noise(kind["count"], 100, 90, seed=i).astype(kind["dtype"])
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(tmp_path / f"{i}.tif", "w", **profile) as file,
        ):
            if kind.get("sparse_ok"):
                file.write(pixels[:, :16, :32], window=((0, 16), (0, 32)))
            else:
                file.write(pixels)
            if kind.get("nodata") is None:
                file.write_mask(noise(100, 90, seed=9) > 80)
        stored = formats.read(tmp_path / f"{i}.tif")
        assert stored.tags and (stored.valid is None) == ("nodata" in kind)
        assert_rows(tmp_path / f"{i}.tif", stored)


def test_a_long_strip_that_is_cut_short_is_one_error(tmp_path, monkeypatch):
    """One byte is read at a time, so that what zlib still holds of its input is asked for."""
    from p2p_jax.images import deflated_strip

    monkeypatch.setattr(windows, "_LONG_STRIP", 1000)
    monkeypatch.setattr(deflated_strip, "_PIECE", 1)
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((64, 48), np.uint8), compression="zlib", rowsperstrip=64)
    with windows.open_rows(tmp_path / "image.tif") as file:
        (strip,) = file._bands._streams
        assert not file.read(0, 64).pixels.any()
        strip._count = 12
        with pytest.raises(InputError, match="a strip ends too early"):
            file.read(0, 64)


def test_a_damaged_strip_is_one_error(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", noise(64, 48, 3), photometric="rgb", compression="zlib", rowsperstrip=8)
    with tifffile.TiffFile(tmp_path / "image.tif") as tif:
        offset = tif.pages[0].dataoffsets[5]
    content = bytearray((tmp_path / "image.tif").read_bytes())
    content[offset : offset + 40] = bytes(40)
    (tmp_path / "image.tif").write_bytes(content)
    with windows.open_rows(tmp_path / "image.tif") as file:
        assert file.read(0, 40).pixels.shape == (40, 48, 3)
        with pytest.raises(InputError, match=r"image.tif cannot be read as an image .*; replace or remove it"):
            file.read(40, 64)


@pytest.mark.parametrize("tile", [None, (32, 16)])
@pytest.mark.parametrize("compression", [1, 5, 8, 50000])
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint8", 1), ("uint16", 4), ("float32", 2)])
def test_rows_are_written_as_the_whole_is(tmp_path, dtype, channels, compression, tile):
    pixels = noise(83, 61, channels).astype(dtype)
    valid = noise(83, 61, seed=1) > 90
    tags = ((33550, 12, 3, (10.0, 10.0, 0.0)), (259, 3, 1, compression))
    if tile:
        tags += ((322, 3, 1, tile[1]), (323, 3, 1, tile[0]))
    facts = {"tags": tags, "profile": None, "nodata": 7.0}
    formats.write(tmp_path / "whole.tif", pixels, valid=valid, **facts)
    ends = [0, 1, 20, 60, 83]
    rows = (pixels[a:b] for a, b in itertools.pairwise(ends))
    known = lambda: (valid[a:b] for a, b in itertools.pairwise(ends))  # noqa: E731
    windows.write(tmp_path / "rows.tif", rows, (83, 61), pixels.dtype, channels, valid=known, **facts)
    whole, found = (formats.read(tmp_path / name) for name in ("whole.tif", "rows.tif"))
    for one in (whole, found):
        np.testing.assert_array_equal(one.pixels, pixels)
        np.testing.assert_array_equal(one.valid, valid)
        assert one.nodata == 7 and dict((tag[0], tag[3]) for tag in one.tags)[33550] == (10.0, 10.0, 0.0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "rows.tif").reshape(pixels.shape), pixels)
    with tifffile.TiffFile(tmp_path / "rows.tif") as tif:
        page = tif.pages[0]
        assert page.compression == compression and page.tile == (tile or (512, 512)) and not tif.is_bigtiff


def test_a_palette_is_written(tmp_path):
    classes, colors = noise(20, 30, 1) % 3, np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    windows.write(tmp_path / "rows.tif", [classes[:7], classes[7:]], (20, 30), classes.dtype, 1, palette=colors)
    found = formats.read(tmp_path / "rows.tif")
    np.testing.assert_array_equal(found.pixels, classes)
    np.testing.assert_array_equal(found.palette[:3], colors)


def test_what_may_exceed_four_gigabytes_is_a_bigtiff(tmp_path, monkeypatch):
    from p2p_jax.images import tiff

    monkeypatch.setattr(tiff, "MOST_BYTES", 20 * 30 * 3 - 1)
    pixels = noise(20, 30, 3)
    windows.write(tmp_path / "rows.tif", [pixels], (20, 30), pixels.dtype, 3)
    formats.write(tmp_path / "whole.tif", pixels)
    for name in ("rows.tif", "whole.tif"):
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.is_bigtiff
        np.testing.assert_array_equal(formats.read(tmp_path / name).pixels, pixels)


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    def rows():
        yield noise(600, 30, 3)
        raise InputError("the source is damaged")

    (tmp_path / "rows.tif").write_bytes(b"the old one")
    with pytest.raises(InputError, match="the source is damaged"):
        windows.write(tmp_path / "rows.tif", rows(), (1200, 30), np.dtype(np.uint8), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.tif"]
    assert (tmp_path / "rows.tif").read_bytes() == b"the old one"


@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "one strip", "one deflated strip"])
def test_a_file_is_never_held_whole(tmp_path, layout):
    """Memory for arrays stays at the rows that are read, not at the 48 MB of the file."""
    shape = (3, 4000, 4000) if layout == "planes" else (4000, 4000, 3)
    kinds = {
        "strips": {"rowsperstrip": 50, "compression": "zlib", "planarconfig": "contig"},
        "tiles": {"tile": (256, 256), "compression": "zlib", "planarconfig": "contig"},
        "planes": {"rowsperstrip": 50, "planarconfig": "separate"},
        "one strip": {"rowsperstrip": 4000, "planarconfig": "contig"},
        "one deflated strip": {
            "rowsperstrip": 4000,
            "compression": "zlib",
            "predictor": True,
            "planarconfig": "contig",
        },
    }
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(shape, np.uint8), photometric="rgb", **kinds[layout])

    def rows(file):
        for first in range(0, 4000, 100):
            yield file.read(first, first + 100).pixels

    tracemalloc.start()
    try:
        with windows.open_rows(tmp_path / "image.tif") as file:
            windows.write(tmp_path / "copy.tif", rows(file), file.size, np.dtype(np.uint8), 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6
    with tifffile.TiffFile(tmp_path / "copy.tif") as tif:
        assert tif.pages[0].shape == (4000, 4000, 3)


def test_what_is_not_stored_as_rgb_is_read_whole(tmp_path):
    Image.fromarray(noise(16, 16, 3)).convert("YCbCr").save(tmp_path / "x.tif")
    assert windows.read_header(tmp_path / "x.tif").mode == "YCbCr"
    Image.fromarray(noise(16, 16, 3)).save(tmp_path / "x.tif")
    assert windows.read_header(tmp_path / "x.tif").mode == ""
