"""Colours, bits and frames of files as other programs write them: read as what they are, or refused by name.

Profiles are made by imagecodecs and files by Pillow, tifffile and imagecodecs; the right colours come from the formula
of the profile and of sRGB (IEC 61966-2-1), and from ImageMagick where it is installed.
"""

import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import load
from p2p_jax.errors import InputError
from p2p_jax.images import formats, pictures, profiles
from support import imagemagick
from support.configs import data_config, small_config
from support.images import noise, save
from support.networks import POINTWISE
from support.runs import translate_files, write_run
from support.streams import in_order

imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")
GAMMA = 1.4
SRGB_PRIMARIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
D65 = (0.3127, 0.329, 1.0)


def profile(channels=3, gamma=GAMMA):
    """Return a profile of the primaries of sRGB, or of gray, in which light is value ** gamma."""
    if channels == 1:
        return imagecodecs.cms_profile("gray", whitepoint=D65, gamma=gamma)
    return imagecodecs.cms_profile("rgb", whitepoint=D65, primaries=SRGB_PRIMARIES, gamma=gamma)


def in_srgb(pixels, gamma=GAMMA):
    """Return what sRGB has for the same light."""
    light = (pixels / 255.0) ** gamma
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def smooth(seed=0, side=32, channels=3):
    small = Image.fromarray(noise(5, 5, channels, seed=seed).squeeze())
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).reshape(side, side, channels)


def write(path, pixels, icc, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        photometric = {"photometric": "rgb" if pixels.shape[-1] == 3 else "minisblack"}
        tifffile.imwrite(path, pixels.squeeze(), iccprofile=icc, **photometric)
    else:
        Image.fromarray(pixels.squeeze()).save(path, icc_profile=icc, **options)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
def test_networks_see_srgb_whatever_the_profile(tmp_path, ending, channels):
    if (ending, channels) == (".webp", 1):
        pytest.skip("WebP knows no gray")
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(ending, {})
    pixels = [smooth(i, channels=channels) for i in range(3)]
    for split in ("train", "val"):
        for i, image in enumerate(pixels):
            write(tmp_path / split / "A" / f"{i}{ending}", image, profile(channels), **options)
            save(tmp_path / split / "B" / f"{i}.png", noise(32, 32, 3, seed=i))
    stored = [formats.read(tmp_path / "val" / "A" / f"{i}{ending}").pixels for i in range(3)]
    expected = np.stack([in_srgb(image) for image in stored])
    assert np.abs(expected - np.stack(stored)).mean() > 10
    most = 1.01 if channels == 3 else 2  # Little CMS goes through Lab of 16 bits
    options = {"source": "folders", "dir": str(tmp_path), "load_size": 32, "crop_size": 32, "input__channels": channels}
    for resident in (False, True):
        found = (in_order(load(data_config(**options, resident=resident)).validation)["real_a"] + 1) * 127.5
        assert np.abs(found - expected).max() <= most
        assert np.abs(found - expected).mean() < 0.5
    shown = pictures.read(tmp_path / "val" / "A" / f"0{ending}").pixels if ending != ".tif" else None
    assert shown is None or np.abs(shown - expected[0]).max() <= most


@pytest.mark.slow
def test_labels_and_other_values_keep_their_numbers(tmp_path):
    """A profile says how a colour looks; of a code it says nothing."""
    codes = noise(32, 32, 3)
    for split in ("train", "val"):
        write(tmp_path / split / "A" / "0.png", codes, profile())
        save(tmp_path / split / "B" / "0.png", noise(32, 32, 3))
    options = {"source": "folders", "dir": str(tmp_path), "load_size": 32, "crop_size": 32, "batch_size": 1}
    for side in ({"kind": "label_colors"}, {"kind": "uint8", "range": "0:200"}):
        found = in_order(load(data_config(**options, data__input=side)).validation)["real_a"][0]
        high = 200 if "range" in side else 255
        np.testing.assert_allclose(found, np.clip(codes / np.float32(high / 2) - 1, -1, 1), atol=1e-6)


@pytest.mark.skipif(not imagemagick.program(), reason=imagemagick.MISSING)
def test_as_imagemagick_converts(tmp_path):
    if not imagemagick.has_colour_management():
        pytest.skip("this ImageMagick has no Little CMS")
    wide = imagecodecs.cms_profile("rgb", whitepoint=D65, primaries=(0.64, 0.33, 0.21, 0.71, 0.15, 0.06), gamma=2.2)
    pixels = smooth(3)
    write(tmp_path / "a.png", pixels, wide)
    (tmp_path / "srgb.icc").write_bytes(profiles.srgb())
    intent = ["-intent", "relative", "-black-point-compensation", "-profile", "srgb.icc"]
    subprocess.run([imagemagick.program(), "a.png", *intent, "out.png"], cwd=tmp_path, check=True)
    expected = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    found = profiles.to_srgb(pixels, wide)
    assert np.abs(expected - pixels).mean() > 2
    assert np.abs(found - expected).max() <= 2 and np.abs(found - expected).mean() < 0.5


def test_srgb_itself_and_damaged_profiles_change_nothing(tmp_path):
    pixels = smooth()
    for icc in (profiles.srgb(), b"no profile at all" * 20, profile(1)):
        write(tmp_path / "a.png", pixels, icc)
        np.testing.assert_array_equal(formats.read(tmp_path / "a.png").in_srgb().pixels, pixels)
        np.testing.assert_array_equal(pictures.read(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_translations_say_that_they_are_srgb_and_keep_their_dots(tmp_path, ending):
    config = small_config(generator=POINTWISE)
    from p2p_jax import pix2pix
    from support.networks import draw_state
    from support.runs import blank_state

    run = write_run(tmp_path / "run", config, draw_state(blank_state(pix2pix(config), config)))
    for name, icc in (("with", profile()), ("srgb", profiles.srgb()), ("without", None)):
        path = tmp_path / "in" / f"{name}{ending}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(smooth()).save(path, dpi=(300, 300), **({"icc_profile": icc} if icc else {}))
    assert translate_files(run, tmp_path / "in", tmp_path / "out") == 0
    for name in ("with", "srgb", "without"):
        with Image.open(tmp_path / "out" / f"{name}{ending}") as image:
            assert (image.info.get("icc_profile") == profiles.srgb()) == (name != "without")
            assert [round(float(x)) for x in image.info["dpi"]] == [300, 300]
    one, other = (
        np.asarray(Image.open(tmp_path / "out" / f"{name}{ending}")).astype(int) for name in ("with", "without")
    )
    assert np.abs(one - other).max() > 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grays_of_few_bits_in_tiffs(tmp_path, bits, white_is_zero):
    """Packed by hand into one strip, as scanners do; Pillow, and the meaning of the photometric tag, have the word."""
    levels = noise(8, 16, low=0, high=2**bits, dtype=np.uint16)
    packed = ((levels[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(8, -1)
    strip = np.packbits(packed, axis=1).tobytes()
    if bits == 16:
        strip = levels.astype("<u2").tobytes()
    tags = [(256, 3, 16), (257, 3, 8), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, 8), (279, 4, len(strip))]
    start = 8 + len(strip) + len(strip) % 2
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    ifd = len(tags).to_bytes(2, "little") + entries + bytes(4)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + start.to_bytes(4, "little") + strip + bytes(len(strip) % 2) + ifd)
    shades = levels * (255 // (2**bits - 1)) if bits <= 8 else levels
    expected = (255 if bits <= 8 else 65535) - shades if white_is_zero else shades
    if bits <= 8:
        np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")), expected)
    stored = formats.read(path)
    found = stored.pixels[..., 0] if stored.palette is None else stored.palette[stored.pixels[..., 0]][..., 0]
    np.testing.assert_array_equal(found, expected)
    header = formats.read_header(path)
    assert (header.palette, header.dtype) == (stored.palette is not None, stored.pixels.dtype)


def test_cie_lab_in_tiffs_is_refused_by_name(tmp_path):
    Image.fromarray(smooth()).convert("LAB").save(tmp_path / "a.tif")
    for read in (formats.read, formats.read_header):
        with pytest.raises(InputError, match=r"a.tif holds colours in CIE Lab; convert it to RGB"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_moving_pictures_are_refused(tmp_path, ending):
    frames = [Image.fromarray(smooth(i)) for i in range(3)]
    frames[0].save(tmp_path / f"a{ending}", save_all=True, append_images=frames[1:])
    for read in (formats.read, formats.read_header, pictures.read):
        with pytest.raises(InputError, match=rf"a\{ending} is an animation of 3 frames; save each"):
            read(tmp_path / f"a{ending}")
    frames[0].save(tmp_path / f"b{ending}", save_all=True)
    assert formats.read(tmp_path / f"b{ending}").pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("change", [-1, 1, -100, 100])
def test_arrays_whose_length_does_not_fit_are_refused(tmp_path, change):
    np.save(tmp_path / "a.npy", noise(16, 16, 3))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:change] if change < 0 else whole + bytes(change))
    for read in (formats.read, formats.read_header):
        with pytest.raises(InputError, match=rf"{abs(change)} bytes {'are missing' if change < 0 else 'too many are'}"):
            read(tmp_path / "a.npy")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_bitmaps_that_end_too_early_are_refused(tmp_path, mode):
    Image.fromarray(smooth()).convert(mode).save(tmp_path / "a.bmp")
    whole = (tmp_path / "a.bmp").read_bytes()
    formats.read(tmp_path / "a.bmp")
    lying = bytearray(whole[:-9])
    lying[2:6] = len(lying).to_bytes(4, "little")  # its head says the size that it has, and not that of its pixels
    for cut in (whole[:-1], whole[:-50], bytes(lying)):
        (tmp_path / "a.bmp").write_bytes(cut)
        for read in (formats.read, formats.read_header, pictures.read):
            with pytest.raises(InputError, match=r"a.bmp cannot be read as an image"):
                read(tmp_path / "a.bmp")
