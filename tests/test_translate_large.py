"""TIFFs that are cut into tiles: a few rows at a time give the file that the whole image gives, and take its place."""

import os

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from p2p_jax import Translator
from p2p_jax.images import formats
from p2p_jax.inference import large, values
from p2p_jax.objectives import blank_batch, pix2pix
from support import processes
from support.configs import small_config
from support.images import noise, save
from support.networks import POINTWISE
from support.runs import translate_files, write_run

imagecodecs = pytest.importorskip("imagecodecs")
RED_GREEN_BLUE = "#ff0000,#00ff00,#0000ff"
UINT16 = {"input__kind": "uint16", "input__channels": 2, "input__range": "0:300", "input__nodata": "0"}
DOMAINS = {
    "pictures": {},
    "pictures of another profile": {},
    "gray to colour": {"input__channels": 1},
    "bands to heights": UINT16 | {"output__kind": "float", "output__channels": 1, "output__range": "-10:30"},
    "bands to bytes with a mask": UINT16 | {"output__channels": 3},
    "bands to numbers": UINT16
    | {"output__kind": "int16", "output__channels": 1, "output__range": "-9:9", "output__nodata": "3"},
    "L to ab": {"input__kind": "lab_l", "input__channels": 1, "output__kind": "lab_ab", "output__channels": 2},
    "L": {"output__kind": "lab_l", "output__channels": 1},
    "classes": {"output__kind": "labels", "output__channels": 3, "output__palette": RED_GREEN_BLUE},
    "numbered classes": {"output__kind": "labels", "output__channels": 3, "output__numbers": "7,900,3"},
    "classes to pictures": {"input__kind": "labels", "input__channels": 3},
}


def make_run(workdir, **data):
    """Make a run whose network sees one pixel, so that it compiles at once and tiles agree."""
    config = small_config(
        generator=POINTWISE,
        inference={"dropout": False},
        loss__lambda_gan=0.0,
        **{f"data__{key}": value for key, value in ({"direction": "AtoB"} | data).items()},
    )
    state = jax.device_get(pix2pix(config).init(jax.random.key(0), blank_batch(config)))
    return write_run(workdir, config, state)


def given_pixels(kind):
    """Return an image [75, 50, C] of the input of one of DOMAINS, with no multiple of a tile on either side."""
    if kind.startswith("bands"):
        pixels = noise(75, 50, 2).astype(np.uint16)
        pixels[60:, 40:] = 0  # unknown, and only in the last row of tiles
        return pixels
    if kind == "classes to pictures":
        return noise(75, 50, 1) % 3
    return noise(75, 50, 1 if kind in ("gray to colour", "L to ab") else 3)


@pytest.mark.parametrize("kind", DOMAINS)
def test_rows_give_the_file_of_the_whole(tmp_path, kind):
    """Beside arrays: the image is read, translated and written whole, in the same tiles."""
    run, pixels = make_run(tmp_path / "run", **DOMAINS[kind]), given_pixels(kind)
    tags = ((33550, 12, 3, (10.0, 10.0, 0.0)), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 4.1e6, 0.0)))
    profile = None
    if "profile" in kind:  # brighter than sRGB
        primaries = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
        profile = imagecodecs.cms_profile("rgb", whitepoint=(0.3127, 0.329, 1.0), primaries=primaries, gamma=1.4)
    nodata = 0.0 if kind.startswith("bands") else None
    formats.write(tmp_path / "in.tif", pixels, tags=tags, profile=profile, nodata=nodata)
    translator = Translator.from_workdir(run, tile=16, overlap=5)
    domains = translator.domain_in, translator.domain_out
    given = values.read(tmp_path / "in.tif", domains[0])
    values.write(tmp_path / "whole.tif", translator(given.values), given, *domains)
    assert large.fits(translator, tmp_path / "in.tif", formats.read_header(tmp_path / "in.tif"))
    large.translate(translator, tmp_path / "in.tif", tmp_path / "rows.tif")
    whole, rows = (formats.read(tmp_path / name) for name in ("whole.tif", "rows.tif"))
    assert rows.pixels.dtype == whole.pixels.dtype and np.nanstd(rows.pixels) > 0
    np.testing.assert_array_equal(rows.pixels, whole.pixels)
    for name in ("palette", "profile", "nodata", "valid"):
        np.testing.assert_equal(getattr(rows, name), getattr(whole, name))
    assert (rows.profile is not None) == ("profile" in kind)
    known = dict((tag[0], tag[3]) for tag in rows.tags)
    assert known[33550] == (10.0, 10.0, 0.0) and known[33922][3:5] == (5e5, 4.1e6)
    if kind.startswith("bands"):
        says = rows.valid is not None, rows.nodata is not None
        assert says == ((True, False) if kind == "bands to bytes with a mask" else (False, True))


def spy(monkeypatch):
    """Return a list of the names of the files that are translated a few rows at a time."""
    seen, real = [], large.translate
    monkeypatch.setattr(
        large, "translate", lambda run, source, target: (seen.append(source.name), real(run, source, target))
    )
    return seen


@pytest.mark.slow
def test_the_command_takes_rows_of_tiffs_alone(tmp_path, monkeypatch, capsys):
    run, seen = make_run(tmp_path / "run"), spy(monkeypatch)
    folder, pixels = tmp_path / "in", noise(40, 70, 3)
    folder.mkdir()
    tiff = {"photometric": "rgb", "metadata": None}
    tifffile.imwrite(folder / "deflated.tif", pixels, compression="zlib", rowsperstrip=7, **tiff)
    tifffile.imwrite(folder / "small.tif", pixels[:16, :16], **tiff)
    tifffile.imwrite(folder / "plain.tif", pixels, **tiff)
    tifffile.imwrite(folder / "turned.tif", pixels, extratags=[(274, 3, 1, 6, True)], **tiff)
    Image.fromarray(pixels).quantize(16).save(folder / "palette.tif")
    tifffile.imwrite(folder / "alpha.tif", noise(40, 70, 4), extrasamples=["unassalpha"], **tiff)
    save(folder / "image.png", pixels)
    assert translate_files(run, folder, tmp_path / "out", "--tile", "16") == 0
    assert seen == ["deflated.tif", "plain.tif"]
    translator = Translator.from_workdir(run, tile=16)
    expected = translator(pixels)
    for name in ("deflated.tif", "plain.tif", "image.png"):
        np.testing.assert_array_equal(formats.read(tmp_path / "out" / name).pixels, expected)
    turned = formats.read(tmp_path / "out" / "turned.tif").pixels
    np.testing.assert_array_equal(turned, translator(np.rot90(pixels, -1)))
    assert "translated 7 of 7 images" in capsys.readouterr().out
    seen.clear()
    for options in ([], ["--tile", "16", "--size", "x0.5"], ["--tile", "16", "--format", "png"]):
        assert translate_files(run, folder / "plain.tif", tmp_path / "more", *options, "--overwrite") == 0
    assert seen == []


def test_a_damaged_tiff_is_named_and_leaves_nothing(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(
            tmp_path / "in" / name, noise(64, 48, 3), photometric="rgb", compression="zlib", rowsperstrip=8
        )
    with tifffile.TiffFile(tmp_path / "in" / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[6]
    content = bytearray((tmp_path / "in" / "a.tif").read_bytes())
    content[offset : offset + 40] = bytes(40)
    (tmp_path / "in" / "a.tif").write_bytes(content)
    assert translate_files(run, tmp_path / "in", tmp_path / "out", "--tile", "16") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tif"]
    assert f"error: {tmp_path / 'in' / 'a.tif'} cannot be read as an image" in capsys.readouterr().err


def test_what_gdal_reads_of_the_translation(tmp_path):
    """Place, blocks, compression and nodata are those of the source; unknown pixels stay unknown."""
    rasterio = pytest.importorskip("rasterio")
    run = make_run(tmp_path / "run", **DOMAINS["bands to heights"])
    pixels = given_pixels("bands").transpose(2, 0, 1)
    profile = {
        "driver": "GTiff", "count": 2, "height": 75, "width": 50, "dtype": "uint16", "nodata": 0, "tiled": True,
        "blockxsize": 32, "blockysize": 16, "compress": "lzw", "interleave": "band", "crs": "EPSG:32632",
        "transform": rasterio.transform.from_origin(5e5, 5e6, 10, 10),
    }  # fmt: skip
    with rasterio.open(tmp_path / "in.tif", "w", **profile) as file:
        file.write(pixels)
    assert translate_files(run, tmp_path / "in.tif", tmp_path / "out.tif", "--tile", "16") == 0
    with rasterio.open(tmp_path / "in.tif") as given, rasterio.open(tmp_path / "out.tif") as made:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        assert made.block_shapes == [(16, 32)] and made.compression.name == "lzw" and made.dtypes == ("float32",)
        lost = (pixels == 0).any(0)
        assert 100 < lost.sum() < 1000
        np.testing.assert_array_equal(made.read_masks(1) == 0, lost)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_memory_is_that_of_a_row_of_tiles(tmp_path):
    """An image of 288 MB, translated by the command, takes less memory than itself beside what a small one takes."""
    run = make_run(tmp_path / "run")
    band = noise(256, 8000, 3)
    for name, rows in (("small", 1), ("large", 47)):
        tiles = (band[:, x : x + 256] for _ in range(rows) for x in range(0, 8000, 256))
        tifffile.imwrite(
            tmp_path / f"{name}.tif", tiles, shape=(256 * rows, 8000, 3), dtype="uint8", tile=(256, 256),
            photometric="rgb", compression="zlib", compressionargs={"level": 1},
        )  # fmt: skip
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from p2p_jax.commands import translate\n"
        f"translate.run([{str(run)!r}, sys.argv[1], '--output', 'out.tif', '--tile', '512', '--overwrite', "
        "'--trust', 'support.networks:Pointwise'])\n"
        "print('peak', Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    peaks = {}
    for name in ("small", "large"):
        result = processes.run([*processes.python(code), f"{name}.tif"], tmp_path)
        assert result.returncode == 0, result.stderr
        peaks[name] = int(result.stdout.split("peak ")[1]) / 1024
    assert tifffile.TiffFile(tmp_path / "out.tif").pages[0].shape == (12032, 8000, 3)
    assert peaks["large"] - peaks["small"] < 200
