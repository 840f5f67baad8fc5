"""Image files as cameras, phones and programs write them are read as these programs show them."""

import io
import os
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin

from p2p_jax.data import load
from p2p_jax.data.stream.sources import loader, make_source
from p2p_jax.errors import InputError
from p2p_jax.images import formats, limits, pictures
from p2p_jax.images.domains import of_config
from p2p_jax.inference import values
from support import imagemagick
from support.comparers import assert_equal_batches
from support.configs import small_config
from support.images import noise, save
from support.streams import take

ENDINGS = [".jpg", ".png", ".tif", ".webp", ".avif"]


@pytest.fixture(autouse=True)
def usual_limit():
    yield
    limits.allow(limits.MAX_PIXELS)


def pairs(root, **changes):
    """Return the config of pairs in two folders."""
    options = {"source": "folders", "dir": str(root), "direction": "AtoB", "val_split": ""}
    return small_config(**{f"data__{key}": value for key, value in (options | changes).items()})


def smooth(height=24, width=32, channels=3):
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + 3 * y + 40 * c) % 160 + 40 for c in range(channels)], -1).astype(np.uint8)


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


# -- Text in PNG files


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("compressed", [False, True])
def test_png_with_text(mode, compressed, tmp_path):
    image = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)) if mode == "I;16" else None
    image = image or Image.fromarray(smooth()).convert(mode)
    image.save(tmp_path / "plain.png")
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "Matplotlib version 3.8", zip=compressed)
    info.add_itxt("Comment", "größer", zip=compressed)
    image.save(tmp_path / "text.png", pnginfo=info)
    plain, text = (tmp_path / f"{name}.png" for name in ("plain", "text"))
    assert formats.read_header(text) == formats.read_header(plain)
    np.testing.assert_array_equal(formats.read(text).pixels, formats.read(plain).pixels)


def test_text_after_the_pixels_of_a_deep_png(tmp_path):
    formats.write(tmp_path / "x.png", noise(24, 32, 3, high=60_000, dtype=np.uint16))
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "y.png").write_bytes(whole[:-12] + chunk(b"tEXt", b"date:create\x002026-01-01") + whole[-12:])
    assert formats.read_header(tmp_path / "y.png") == formats.read_header(tmp_path / "x.png")
    assert formats.read_header(tmp_path / "y.png").dtype == np.uint16


# -- EXIF orientation


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(ending, orientation, tmp_path):
    path, exif = tmp_path / f"x{ending}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth()).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header, stored = formats.read_header(path), formats.read(path)
    np.testing.assert_array_equal(stored.pixels, expected)
    assert (header.height, header.width) == expected.shape[:2]
    assert header.turned == (orientation > 1)
    np.testing.assert_array_equal(pictures.read(path).pixels, expected)


@pytest.mark.parametrize("kind", ["eXIf behind the pixels", "text of ImageMagick", "compressed text", "XMP"])
def test_orientation_in_every_place_of_a_png(kind, tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "x.png")
    whole, exif = (tmp_path / "x.png").read_bytes(), Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    digits = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    added = {
        "eXIf behind the pixels": chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        "text of ImageMagick": chunk(b"tEXt", b"Raw profile type exif\0" + digits),
        "compressed text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits)),
        "XMP": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    }[kind]
    (tmp_path / "x.png").write_bytes(whole[:-12] + added + whole[-12:])
    with Image.open(tmp_path / "x.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == (32, 24, 3)
    np.testing.assert_array_equal(formats.read(tmp_path / "x.png").pixels, expected)
    assert formats.read_header(tmp_path / "x.png").turned


def test_a_deep_tiff_is_turned_too_but_not_a_map(tmp_path):
    x = noise(24, 32, 4, high=60_000, dtype=np.uint16)
    options = dict(photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "x.tif", x, extratags=[(274, 3, 1, 6, True)], **options)
    np.testing.assert_array_equal(formats.read(tmp_path / "x.tif").pixels, np.rot90(x, -1))
    scale = (33550, 12, 3, (10.0, 10.0, 0.0), True)
    tifffile.imwrite(tmp_path / "x.tif", x, extratags=[(274, 3, 1, 6, True), scale], **options)
    with pytest.raises(InputError, match=r"x\.tif has the orientation 6 and a georeference"):
        formats.read_header(tmp_path / "x.tif")


@pytest.mark.slow
def test_training_sees_turned_photographs_upright(tmp_path):
    upright = [noise(16, 16, 3, seed=i) for i in range(4)]
    for name in ("turned", "upright"):
        for i, image in enumerate(upright):
            exif = Image.Exif()
            exif[0x0112] = 6 if name == "turned" else 1
            for side in "AB":
                path = tmp_path / name / f"train{side}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.rot90(image) if name == "turned" else image).save(path, exif=exif)
    batches = [take(load(pairs(tmp_path / name, flip=False)).train(0), 2) for name in ("turned", "upright")]
    resident = [take(load(pairs(tmp_path / name, resident=True)).train(0), 2) for name in ("turned", "upright")]
    for turned, plain in (*zip(*batches, strict=True), *zip(*resident, strict=True)):
        assert_equal_batches(turned, plain)


# -- Opacity


def transparent(mode):
    """Return an image with opacity, and what it is on white by Pillow."""
    rgba = np.concatenate([smooth(), noise(24, 32, 1, low=0, high=256)], axis=-1)
    image = Image.fromarray(rgba)
    if mode == "P":
        image = Image.fromarray(rgba[..., 0] // 64).convert("P")
        image.putpalette(list(range(12)))
        image.info["transparency"] = bytes([0, 128, 255])
        seen = image.convert("RGBA")
    elif mode == "key":
        image = image.convert("RGB")
        image.info["transparency"] = tuple(rgba[3, 4, :3].tolist())
        seen = image.convert("RGBA")
    else:
        image = image.convert(mode)
        seen = image
    if mode == "LA":
        white = Image.new("L", image.size, "white")
        white.paste(seen.convert("L"), mask=seen.getchannel("A"))
        return image, np.asarray(white)[..., None]
    white = Image.new("RGB", image.size, "white")
    white.paste(seen.convert("RGB"), mask=seen.getchannel("A"))
    return image, np.asarray(white)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "key"])
def test_transparent_parts_are_laid_on_white_as_pillow_does(mode, tmp_path):
    image, expected = transparent(mode)
    (tmp_path / "trainA").mkdir()
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    image.save(tmp_path / "trainA" / "x.png", **options)
    np.testing.assert_array_equal(pictures.read(tmp_path / "trainA" / "x.png").pixels, expected)
    shutil.copytree(tmp_path / "trainA", tmp_path / "trainB")
    with pytest.raises(InputError, match=r"x\.png has transparent parts .*config\.data\.background=white"):
        make_source(pairs(tmp_path).data, "train")
    a, _ = loader(make_source(pairs(tmp_path, background="white").data, "train"))(0)
    np.testing.assert_array_equal(a, expected if expected.shape[-1] == 3 else np.repeat(expected, 3, axis=-1))
    on_colour, _ = loader(make_source(pairs(tmp_path, background="#ff8000").data, "train"))(0)
    assert (on_colour != a).any()


@pytest.mark.slow
def test_opacity_that_is_everywhere_whole_goes_without_a_word(tmp_path):
    pixels = [noise(16, 16, 3, seed=i) for i in range(4)]
    for i, image in enumerate(pixels):
        opaque = np.concatenate([image, np.full((16, 16, 1), 255, np.uint8)], axis=-1)
        for name, a in (("plain", image), ("opaque", opaque if i % 2 else image)):
            save(tmp_path / name / "trainA" / f"{i}.png", a)
            save(tmp_path / name / "trainB" / f"{i}.png", image)
    batches = [take(load(pairs(tmp_path / name)).train(0), 3) for name in ("plain", "opaque")]
    for plain, with_opacity in zip(*batches, strict=True):
        assert_equal_batches(plain, with_opacity)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_tiff_with_opacity(extra, tmp_path):
    rgb, alpha = smooth(), noise(24, 32, 1, low=0, high=256)
    seen = rgb if extra != "assocalpha" else (rgb.astype(int) * alpha // 255).astype(np.uint8)
    pixels = np.concatenate([seen, alpha], axis=-1)
    options = dict(photometric="rgb", extrasamples=[extra])
    for side in "AB":
        (tmp_path / f"train{side}").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"train{side}" / "x.tif", pixels, **options)
    if extra == "unspecified":  # not known to be opacity, and not opaque all over
        with pytest.raises(InputError, match=r"x\.tif has 4 channels, but this side takes 3"):
            make_source(pairs(tmp_path, background="white").data, "train")
        for side in "AB":
            pixels[..., 3] = 255
            tifffile.imwrite(tmp_path / f"train{side}" / "x.tif", pixels, **options)
        a, _ = loader(make_source(pairs(tmp_path).data, "train"))(0)
        np.testing.assert_array_equal(a, rgb)
        return
    a, _ = loader(make_source(pairs(tmp_path, background="white").data, "train"))(0)
    weight = alpha / 255
    expected = rgb * weight + 255 * (1 - weight)
    assert np.abs(a - expected).max() <= (0.5 + 1e-9 if extra == "unassalpha" else 1.5)


def test_colours_for_print_are_those_of_pillow(tmp_path):
    image = Image.fromarray(smooth()).convert("CMYK")
    for ending in (".jpg", ".tif"):
        image.save(tmp_path / f"x{ending}")
        with Image.open(tmp_path / f"x{ending}") as opened:
            expected = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(formats.read(tmp_path / f"x{ending}").pixels, expected)
        assert formats.read_header(tmp_path / f"x{ending}").channels == 3


def test_a_background_that_is_no_colour(tmp_path):
    with pytest.raises(InputError, match=r"config\.data\.background is 'blank'; write white, black or a colour"):
        make_source(pairs(tmp_path, background="blank").data, "train")


# -- Phones


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_as_its_library_shows_it(orientation, tmp_path):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(smooth(64, 96))
    heif.from_pillow(image).save(tmp_path / "x.heic", quality=90, exif=exif.tobytes())
    expected = np.asarray(heif.open_heif(tmp_path / "x.heic").to_pillow())
    stored, header = formats.read(tmp_path / "x.heic"), formats.read_header(tmp_path / "x.heic")
    np.testing.assert_array_equal(stored.pixels, expected)
    assert (header.height, header.width) == stored.pixels.shape[:2]
    upright = np.rot90(smooth(64, 96), -1) if orientation == 6 else smooth(64, 96)
    assert np.abs(stored.pixels.astype(int) - upright).mean() < 12


def test_what_is_called_heic_or_jpg_and_is_another(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    Image.fromarray(smooth()).save(tmp_path / "x.heic", "JPEG")
    heif.from_pillow(Image.fromarray(smooth(64, 64))).save(tmp_path / "x.jpg", format="HEIF")
    Image.fromarray(smooth()).save(tmp_path / "y.jpg", "WEBP")
    for name, form in (("x.heic", "JPEG"), ("x.jpg", "HEIF"), ("y.jpg", "WEBP")):
        assert formats.read_header(tmp_path / name).form == form
        assert formats.read(tmp_path / name).pixels.shape[-1] == 3


def test_a_mixture_trains(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    for side in "AB":
        folder = tmp_path / f"train{side}"
        folder.mkdir()
        for i, kind in enumerate(("JPEG", "PNG", "WEBP", "AVIF")):
            Image.fromarray(noise(16, 16, 3, seed=i)).save(folder / f"{i}.jpg", kind)
        heif.from_pillow(Image.fromarray(noise(16, 16, 3))).save(folder / "5.heic")
    data = load(pairs(tmp_path))
    assert data.num_train == 5
    for batch in take(data.train(0), 5):
        assert batch["real_a"].shape == (4, 16, 16, 3) and np.isfinite(batch["real_a"]).all()


# -- What is no image


WRONG = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "pointer of Git LFS"),
    "HTML": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page"),
    "HTML with spaces": (b"\n\n  <html lang='en'>" + b"x" * 99, "web page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "JSON": (b'{"message": "rate limit exceeded"}', "JSON"),
    "PDF": (b"%PDF-1.7\n" + bytes(99), "PDF"),
    "ZIP": (b"PK\x03\x04" + bytes(99), "ZIP"),
    "zeros": (bytes(4096), "zeros"),
    "a Mac's": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(99), "AppleDouble"),
    "video": (b"\x00\x00\x00\x20ftypisom" + bytes(99), "video"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_called_what_it_is(kind, tmp_path):
    contents, word = WRONG[kind]
    for ending in (".jpg", ".png", ".tif"):
        (tmp_path / f"x{ending}").write_bytes(contents)
        for read in (formats.read, formats.read_header):
            with pytest.raises(InputError, match=rf"x\{ending} .*{word}"):
                read(tmp_path / f"x{ending}")


def test_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "x.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match=r"x\.jpg is a link to .*gone\.jpg, which is not there"):
        formats.read(tmp_path / "x.jpg")


# -- Images that are too large


def header_of_a_png(width, height):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", bytes(40))
    )


def large_file(kind, path):
    if kind == "npz":
        np.savez_compressed(path.with_suffix(".npz"), np.zeros((40_000, 3_000), np.uint8))
        return path.with_suffix(".npz")
    if kind == "channels":
        np.savez_compressed(path.with_suffix(".npz"), np.zeros((1_000, 1_000, 500), np.uint8))
        return path.with_suffix(".npz")
    if kind == "tif":
        tifffile.imwrite(path.with_suffix(".tif"), np.zeros((12_000, 12_000), np.uint8), compression="zlib")
        return path.with_suffix(".tif")
    if kind == "png":
        path.with_suffix(".png").write_bytes(header_of_a_png(60_000, 60_000))
        return path.with_suffix(".png")
    if kind == "bmp":
        image = io.BytesIO()
        Image.new("L", (4, 4)).save(image, "BMP")
        contents = bytearray(image.getvalue())
        contents[18:26] = struct.pack("<ii", 60_000, 60_000)
        path.with_suffix(".bmp").write_bytes(bytes(contents) + bytes(100))
        os.truncate(path.with_suffix(".bmp"), 3_700_000_000)  # a hole
        return path.with_suffix(".bmp")
    Image.new("L", (12_000, 12_000)).save(path.with_suffix(".jpg"))
    return path.with_suffix(".jpg")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "tif", "npz", "channels", "bmp", "jpg"])
def test_large_images_are_refused_unless_they_are_meant(kind, tmp_path):
    path = large_file(kind, tmp_path / "x")
    with pytest.raises(
        InputError, match=r"in memory; config\.data\.max_pixels=89478485 allows .*config\.data\.max_pixels=\d+"
    ) as caught:
        formats.read(path)
    wanted = int(str(caught.value).rpartition("=")[2])
    if kind in ("tif", "npz", "jpg"):
        limits.allow(wanted)
        assert formats.read(path).pixels.max() == 0


def test_a_training_says_the_limit_and_takes_another(tmp_path):
    for side in "AB":
        save(tmp_path / f"train{side}" / "x.png", noise(40, 50, 3))
    with pytest.raises(InputError, match=r"x\.png is 50x40 pixels, .*config\.data\.max_pixels=2000"):
        make_source(pairs(tmp_path, max_pixels=1999).data, "train")
    assert make_source(pairs(tmp_path, max_pixels=2000).data, "train").names[0].endswith("x.png")


# -- Programs that people have


@pytest.mark.skipif(not imagemagick.program(), reason=imagemagick.MISSING)
@pytest.mark.parametrize(
    "options",
    [
        ["-comment", "a comment", "x.png"],
        ["-depth", "16", "x.png"],
        ["-alpha", "set", "x.png"],
        ["-colorspace", "CMYK", "x.jpg"],
        ["-colorspace", "gray", "-depth", "4", "x.png"],
        ["-orient", "RightTop", "x.jpg"],
        ["-alpha", "set", "-compress", "lzw", "x.tif"],
        ["-type", "Palette", "x.bmp"],
        ["-define", "png:exclude-chunk=none", "-set", "date:create", "2026", "x.png"],
    ],
    ids=lambda options: " ".join(options[:-1]).strip("-"),
)
def test_files_of_imagemagick(options, tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "in.png")
    subprocess.run([imagemagick.program(), "in.png", *options], cwd=tmp_path, check=True)
    path = tmp_path / options[-1]
    header, stored = formats.read_header(path), formats.read(path)
    assert (header.height, header.width, header.channels) == stored.pixels.shape
    assert (header.dtype, header.palette) == (stored.pixels.dtype, stored.palette is not None)
    with Image.open(path) as image:
        shape = np.asarray(ImageOps.exif_transpose(image)).shape[:2]
    assert stored.pixels.shape[:2] == shape


# -- Training and translation see the same


def photographs():
    """Return images and how they are saved, by the name of the file."""
    exif = Image.Exif()
    exif[0x0112] = 8
    rgb = Image.fromarray(smooth())
    opaque = rgb.copy()
    opaque.putalpha(255)
    return {
        "turned.jpg": (rgb, {"exif": exif}),
        "opaque.png": (opaque, {}),
        "opaque.tif": (opaque, {}),
        "opaque.webp": (opaque, {"lossless": True}),
        "print.jpg": (rgb.convert("CMYK"), {}),
        "print.tif": (rgb.convert("CMYK"), {}),
        "palette.png": (rgb.quantize(20), {}),
        "palette.bmp": (rgb.quantize(20), {}),
        "gray.jpg": (rgb.convert("L"), {}),
        "bits.png": (rgb.convert("1"), {}),
        "phone.avif": (rgb, {"exif": exif}),
        "ycbcr.tif": (rgb.convert("YCbCr"), {"compression": "jpeg"}),
    }


@pytest.mark.parametrize("name", photographs())
def test_translation_reads_as_training_does(name, tmp_path):
    image, options = photographs()[name]
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / name
    image.save(path, **options)
    data = pairs(tmp_path, source="photos").data
    (trained,) = loader(make_source(data, "train"))(0)
    domain = of_config(data)[1]
    found = values.read(path, domain).values
    np.testing.assert_array_equal(found, pictures.with_channels(trained, 3))
    np.testing.assert_array_equal(found, pictures.with_channels(pictures.read(path).pixels, 3))


# -- What a second pair of eyes found


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_tiff_of_luma_and_colour_differences(compression, tmp_path):
    image = Image.fromarray(smooth()).convert("YCbCr")
    image.save(tmp_path / "x.tif", **({"compression": compression} if compression else {}))
    found = formats.read(tmp_path / "x.tif").pixels.astype(int)
    difference = np.abs(found - np.asarray(image.convert("RGB")))
    assert difference.mean() < 8 if compression == "jpeg" else difference.max() == 0


def damaged_png(kind):
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 30, 3)).save(buffer, "PNG")
    whole = buffer.getvalue()
    if kind == "no end":
        return whole[:-12]
    place = whole.index(b"IDAT") + 100 if kind == "pixels" else len(whole) - 2
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize("kind", ["no end", "pixels", "end"])
def test_a_damaged_png_is_one_everywhere(kind, tmp_path):
    for side in "AB":
        save(tmp_path / f"train{side}" / "x.png", noise(40, 30, 3))
    (tmp_path / "trainA" / "x.png").write_bytes(damaged_png(kind))
    message = r"x\.png cannot be read as an image .(it ends too early|its chunk I.* is damaged)"
    with pytest.raises(InputError, match=message):
        formats.read(tmp_path / "trainA" / "x.png")
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
        make_source(pairs(tmp_path).data, "train")


@pytest.mark.parametrize("kind", ["long text", "short chunk"])
def test_chunks_that_change_no_pixel_keep_none_from_being_read(kind, tmp_path):
    save(tmp_path / "x.png", smooth())
    whole = (tmp_path / "x.png").read_bytes()
    long_text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(os.urandom(1_500_000).hex().encode()))
    added = long_text if kind == "long text" else chunk(b"cHRM", b"\0" * 5)
    (tmp_path / "x.png").write_bytes(whole[:33] + added + whole[33:])
    np.testing.assert_array_equal(formats.read(tmp_path / "x.png").pixels, smooth())
    assert formats.read_header(tmp_path / "x.png").mode == "RGB"


def test_a_mask_of_another_size_is_not_decoded(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as tif:
        tif.write(np.zeros((8, 8), np.uint8))
        tif.write(np.zeros((3000, 3000), bool), photometric="mask", subfiletype=4, compression="zlib")
    with pytest.raises(InputError, match=r"its mask has 3000x3000 pixels, unlike the image"):
        formats.read(tmp_path / "x.tif")


@pytest.mark.parametrize("resident", [False, True])
def test_label_maps_with_opacity_and_a_palette(resident, tmp_path):
    classes = noise(16, 16, low=0, high=2, seed=3)
    colours = np.array([[255, 0, 0, 255], [0, 0, 255, 255]], np.uint8)
    for i in range(4):
        save(tmp_path / "trainA" / f"{i}.png", colours[classes])
        save(tmp_path / "trainB" / f"{i}.png", noise(16, 16, 3, seed=i))
    labels = {"input__kind": "labels", "input__channels": 2, "input__palette": "#ff0000,#0000ff"}
    options = {"crop_size": 16, "load_size": 16, "flip": False, "resident": resident}
    batch = take(load(pairs(tmp_path, **options, **labels)).train(0), 1)[0]["real_a"]
    np.testing.assert_array_equal(batch[0].argmax(-1), classes)
    assert set(np.unique(batch)) == {-1, 1}
