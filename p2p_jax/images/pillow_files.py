"""Image files that Pillow reads and writes, and PNGs of 16 bits, which imagecodecs does."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

from p2p_jax.errors import InputError
from p2p_jax.images import png
from p2p_jax.images.stored import Header, Stored, with_channel_axis


def read_header(path: Path, file: IO[bytes]) -> Header:
    """Read what an image file that Pillow knows says of itself."""
    with Image.open(file) as image:
        # PNG's own getexif decodes the image first, to look behind it.
        exif = image.getexif() if image.format != "PNG" or png.has_exif(file) else {}
        upright = exif.get(ExifTags.Base.Orientation, 1) <= 1
        if channels := png.deep_channels(image):
            return Header(*image.size, channels, np.dtype(np.uint16), upright=upright)
        mode = "P" if png.few_grays(image) else image.mode
        return Header(*image.size, len(image.getbands()), np.dtype(np.uint8), mode == "P", mode, upright)


def read(path: Path, file: IO[bytes]) -> Stored:
    """Read an image file that Pillow knows, and PNGs of 16 bits."""
    with Image.open(file) as image:
        if channels := png.deep_channels(image):
            file.seek(0)
            pixels = with_channel_axis(_imagecodecs().png_decode(file.read()))
            return Stored(np.ascontiguousarray(pixels[..., :channels]))  # it makes opacity of a transparent colour
        if grays := png.few_grays(image):
            ramp = np.linspace(0, 255, grays).astype(np.uint8)
            return Stored(np.asarray(image)[..., None] // ramp[1], np.repeat(ramp[:, None], 3, axis=1))
        image.load()
        if image.mode == "1":
            return Stored(np.asarray(image, np.uint8)[..., None] * np.uint8(255))
        pixels = with_channel_axis(np.asarray(image))
        if image.mode != "P":
            return Stored(pixels)
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    if pixels.max() >= len(palette):
        raise ValueError(f"it has an index {pixels.max()}, but a palette of {len(palette)} colours")
    return Stored(pixels, palette)


def write(path: Path, stored: Stored, options: Mapping[str, Any]) -> None:
    """Write an image file, in the format of its ending; see ``formats.write``."""
    pixels = stored.pixels[..., 0] if stored.pixels.shape[2] == 1 else stored.pixels
    if pixels.dtype == np.uint16:
        path.write_bytes(_imagecodecs().png_encode(pixels, 3))
        return
    image = Image.fromarray(pixels)
    if stored.palette is not None:
        image.putpalette(np.ascontiguousarray(stored.palette).tobytes())
    image.save(path, **options)


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise InputError("PNG of 16 bits needs imagecodecs: pip install 'p2p_jax[images]'") from error
    return imagecodecs
